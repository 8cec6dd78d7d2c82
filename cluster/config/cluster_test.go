package config_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/cluster/clustertest"
	"github.com/nines-go/nines/cluster/config"
)

// bubble runs fn in simulated time with servers on hosts a, b, c…
func bubble(t *testing.T, n int, fn func(t *testing.T, net *clustertest.Network, all []*server)) {
	synctest.Test(t, func(t *testing.T) {
		net := network()
		var all []*server
		for i := range n {
			name := string(rune('a' + i))
			s := serve(t, host(net, name), base(t, `{"ClusterSettings": {"NodeName": "`+name+`"}}`))
			s.ready(t)
			all = append(all, s)
		}
		defer func() {
			for _, s := range all {
				s.end()
			}
			linger()
		}()
		time.Sleep(5 * time.Second)
		require.Len(t, all[0].Alive(), n)
		fn(t, net, all)
	})
}

// same requires that all have one configuration, and know it of each other a moment later, and returns it.
func same(t *testing.T, all []*server) *settings {
	for _, s := range all[1:] {
		require.Equal(t, all[0].Hash(), s.Hash())
	}
	time.Sleep(time.Second)
	for _, s := range all[1:] {
		require.Equal(t, all[0].Hash(), s.Hash())
		require.Equal(t, all[0].Version(), s.Version())
		require.Equal(t, all[0].Get().SqlSettings, s.Get().SqlSettings, "secrets too")
		require.Empty(t, s.reasons(config.Code))
	}
	return all[0].Get()
}

func TestSaveReachesAllNodes(t *testing.T) {
	bubble(t, 3, func(t *testing.T, net *clustertest.Network, all []*server) {
		changed := map[string]int{}
		all[2].OnChange(func(old, new *settings) {
			changed["from"], changed["to"] = old.ServiceSettings.MaxSockets, new.ServiceSettings.MaxSockets
		})
		require.NoError(t, all[0].Save(t.Context(), set(func(c *settings) {
			c.ServiceSettings.MaxSockets, c.SqlSettings.DataSource = 7, "secret"
			c.ClusterSettings.NodeName = "A"
		}), nil))
		require.Equal(t, 7, same(t, all).ServiceSettings.MaxSockets, "everywhere when Save has returned")
		for i, name := range []string{"A", "b", "c"} {
			require.Equal(t, name, all[i].Get().ClusterSettings.NodeName, "local settings stay")
			require.Contains(t, read(t, all[i].Stats().Path), `"NodeName": "`+name+`"`)
			require.Contains(t, read(t, all[i].Stats().Path), `"MaxSockets": 7`)
		}
		synctest.Wait()
		require.Equal(t, map[string]int{"from": 100, "to": 7}, changed)
		sent, err := all[1].Request(t.Context(), all[0].ID(), "nines.config.get", []byte("{}"))
		require.NoError(t, err)
		require.Contains(t, string(sent), "ServiceSettings.MaxSockets")
		require.NotContains(t, string(sent), "ClusterSettings", "local settings do not leave their node")

		// Who comes later catches up, with its own local settings; an old file of its own is put aside.
		late := serve(t, host(net, "d"), base(t, `{"ClusterSettings": {"NodeName": "d"}, "ServiceSettings": {"SiteURL": "old"}}`))
		defer late.end()
		late.ready(t)
		time.Sleep(time.Second)
		require.Equal(t, 7, late.Get().ServiceSettings.MaxSockets)
		require.Equal(t, "d", late.Get().ClusterSettings.NodeName)
		same(t, append([]*server{late}, all...))
		require.Contains(t, read(t, late.Stats().Path+".previous"), "old")
		require.ErrorContains(t, late.Check(t.Context()), "ServiceSettings.MaxSockets", "it may need a restart")

		// Who was away for a save too.
		net.Partition([]string{"b"})
		time.Sleep(10 * time.Second)
		require.NoError(t, all[0].Save(t.Context(), set(func(c *settings) { c.ServiceSettings.MaxSockets = 8 }), nil))
		require.Equal(t, 7, all[1].Get().ServiceSettings.MaxSockets)
		net.Heal()
		time.Sleep(5 * time.Second)
		require.Equal(t, 8, same(t, all).ServiceSettings.MaxSockets)
	})
}

func TestConcurrentSavesAreOneAfterTheOther(t *testing.T) {
	rounds := 6
	bubble(t, 3, func(t *testing.T, net *clustertest.Network, all []*server) {
		net.Delay(0, 3*time.Millisecond)
		var wg sync.WaitGroup
		for _, s := range all {
			wg.Go(func() {
				for range rounds {
					err := error(config.ErrConflict)
					for errors.Is(err, config.ErrConflict) {
						err = s.Save(t.Context(), set(func(c *settings) {
							c.ServiceSettings.MaxSockets++
							c.ServiceSettings.SiteURL = s.ID()
						}), nil)
					}
					require.NoError(t, err)
				}
			})
		}
		seen := make([][]uint64, len(all))
		ctx, cancel := context.WithCancel(t.Context())
		for i, s := range all {
			wg.Go(func() {
				for range s.Watch(ctx) {
					seen[i] = append(seen[i], s.Version().Number)
				}
			})
		}
		for {
			time.Sleep(time.Second)
			if all[0].Stats().Saves+all[1].Stats().Saves+all[2].Stats().Saves == uint64(3*rounds) {
				break
			}
		}
		cancel()
		wg.Wait()
		require.Equal(t, 100+3*rounds, same(t, all).ServiceSettings.MaxSockets, "each once: none lost, none twice")
		for _, numbers := range seen {
			require.IsIncreasing(t, distinct(numbers))
		}
	})
}

func distinct(numbers []uint64) (out []uint64) {
	for i, n := range numbers {
		if i == 0 || n != numbers[i-1] {
			out = append(out, n)
		}
	}
	return out
}

func TestOfTwoSidesOneWinsEverywhere(t *testing.T) {
	bubble(t, 4, func(t *testing.T, net *clustertest.Network, all []*server) {
		net.Partition([]string{"a", "b"}, []string{"c", "d"})
		time.Sleep(10 * time.Second)
		require.NoError(t, all[0].Save(t.Context(), set(func(c *settings) { c.ServiceSettings.SiteURL = "left" }), nil))
		require.NoError(t, all[2].Save(t.Context(), set(func(c *settings) { c.ServiceSettings.SiteURL = "right" }), nil))
		require.Equal(t, "left", all[1].Get().ServiceSettings.SiteURL)
		require.Equal(t, "right", all[3].Get().ServiceSettings.SiteURL)
		net.Heal()
		time.Sleep(10 * time.Second)
		require.Equal(t, "right", same(t, all).ServiceSettings.SiteURL, "same number: the younger process")
		require.NoError(t, all[1].Save(t.Context(), set(func(c *settings) { c.ServiceSettings.SiteURL = "both" }), nil))
		require.Equal(t, "both", same(t, all).ServiceSettings.SiteURL)
	})
}

func TestASaveThatOneNodeRefusesChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := network()
		cfg := base(t, "")
		a := serve(t, host(net, "a"), cfg)
		a.ready(t)
		cfg = base(t, "")
		cfg.Validate = func(c *settings) error {
			if c.ServiceSettings.MaxSockets > 1000 {
				return errors.New("ServiceSettings.MaxSockets is too large here: use at most 1000")
			}
			return nil
		}
		b := serve(t, host(net, "b"), cfg)
		b.ready(t)
		c := serve(t, host(net, "c"), base(t, ""))
		c.ready(t)
		time.Sleep(5 * time.Second)
		err := a.Save(t.Context(), set(func(c *settings) { c.ServiceSettings.MaxSockets = 2000 }), nil)
		require.ErrorIs(t, err, config.ErrRefused)
		require.ErrorContains(t, err, "b: ")
		require.ErrorContains(t, err, "too large here")
		require.Zero(t, same(t, []*server{a, b, c}).private)
		require.Zero(t, a.Version())

		// A read-only node refuses for all; who comes read only later does not take anything, and says so.
		require.NoError(t, a.Save(t.Context(), set(func(c *settings) { c.ServiceSettings.MaxSockets = 3 }), nil))
		d := serve(t, host(net, "d"), base(t, `{"ClusterSettings": {"ReadOnlyConfig": true}}`))
		d.ready(t)
		time.Sleep(10 * time.Second)
		require.Equal(t, 100, d.Get().ServiceSettings.MaxSockets)
		require.ErrorContains(t, d.Check(t.Context()), "this node is read only and at version 0")
		require.ErrorIs(t, a.Save(t.Context(), set(func(c *settings) { c.ServiceSettings.MaxSockets = 4 }), nil), config.ErrReadOnly)
		require.Equal(t, 3, a.Get().ServiceSettings.MaxSockets)
		d.end()
		for _, s := range []*server{a, b, c} {
			s.end()
		}
		linger()
	})
}

func TestAFileThatCannotBeWritten(t *testing.T) {
	bubble(t, 2, func(t *testing.T, net *clustertest.Network, all []*server) {
		dir := filepath.Dir(all[1].Stats().Path)
		require.NoError(t, os.Rename(dir, dir+".gone"))
		err := all[0].Save(t.Context(), set(func(c *settings) { c.ServiceSettings.MaxSockets = 5 }), nil)
		require.ErrorIs(t, err, config.ErrRefused)
		require.ErrorContains(t, err, "b: ")
		require.Equal(t, 100, same(t, all).ServiceSettings.MaxSockets, "nothing has changed")

		// Who has to catch up and cannot write keeps what it has, says so, and tries again.
		net.Partition([]string{"b"})
		time.Sleep(10 * time.Second)
		require.NoError(t, all[0].Save(t.Context(), set(func(c *settings) { c.ServiceSettings.MaxSockets = 6 }), nil))
		net.Heal()
		time.Sleep(20 * time.Second)
		require.Equal(t, 100, all[1].Get().ServiceSettings.MaxSockets)
		err = all[1].Check(t.Context())
		require.ErrorContains(t, err, "could not take version 1 of a")
		require.ErrorContains(t, err, "cannot be written")
		require.Equal(t, cluster.Red, all[0].reasons(config.Code)[0].Level)
		require.NoError(t, os.Rename(dir+".gone", dir))
		time.Sleep(40 * time.Second)
		require.Equal(t, 6, same(t, all).ServiceSettings.MaxSockets)
		require.NotErrorAs(t, all[1].Check(t.Context()), new(*cluster.PeersError))
		require.ErrorContains(t, all[1].Check(t.Context()), "not in use yet", "only the restart is left to say")
	})
}

func TestAnUnreachableMemberDoesNotLoseASave(t *testing.T) {
	bubble(t, 3, func(t *testing.T, net *clustertest.Network, all []*server) {
		net.Pause("c") // nobody knows yet
		err := all[0].Save(t.Context(), set(func(c *settings) { c.ServiceSettings.MaxSockets = 5 }), nil)
		require.NoError(t, err, "it was declared failed meanwhile")
		require.Equal(t, 5, all[1].Get().ServiceSettings.MaxSockets)
		net.Resume("c")
		time.Sleep(10 * time.Second)
		require.Equal(t, 5, same(t, all).ServiceSettings.MaxSockets)

		net.Pause("c")
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		err = all[0].Save(ctx, set(func(c *settings) { c.ServiceSettings.MaxSockets = 6 }), nil)
		var pe *cluster.PeersError
		require.ErrorAs(t, err, &pe)
		require.Contains(t, pe.Failed, all[2].ID())
		net.Resume("c")
		time.Sleep(10 * time.Second)
		same(t, all)
	})
}

func TestADifferenceIsRedAndNamesItsSections(t *testing.T) {
	keyA, keyB := cluster.NewKey(), cluster.NewKey()
	synctest.Test(t, func(t *testing.T) {
		net := network()
		run := func(name string, keys [][]byte, text string) *server {
			c := host(net, name)
			c.Keys, c.InsecureNoKeys = keys, false
			s := serve(t, c, base(t, text))
			s.ready(t)
			return s
		}
		const secret = `"SqlSettings": {"DataSource": "one"}`
		a := run("a", [][]byte{keyA}, `{`+secret+`}`)
		b := run("b", [][]byte{keyB, keyA}, `{`+secret+`, "ClusterSettings": {"NodeName": "b"}}`)
		time.Sleep(10 * time.Second)
		require.Empty(t, a.reasons(config.Code), "in the middle of a change of keys, with the same secrets")
		require.Empty(t, b.reasons(config.Code))

		write(t, b.Stats().Path, `{`+secret+`, "ServiceSettings": {"SiteURL": "x"}, "Flags": {"x": true}}`)
		require.NoError(t, b.Reload(t.Context()))
		time.Sleep(time.Second)
		found := a.reasons(config.Code)
		require.Len(t, found, 1)
		require.Equal(t, cluster.Red, found[0].Level)
		require.Equal(t, "b has another configuration than this node: sections Flags, ServiceSettings differ", found[0].Text)
		require.Contains(t, found[0].Remedy, "reload")
		require.Equal(t, cluster.Red, a.Status().Level)
		require.False(t, found[0].NotReady)
		require.NoError(t, a.WaitReady(within(t)), "it serves all the same")

		write(t, b.Stats().Path, `{"SqlSettings": {"DataSource": "`+canary+`"}}`)
		require.NoError(t, b.Reload(t.Context()))
		time.Sleep(time.Second)
		require.Equal(t, a.Hash(), b.Hash(), "only the secret differs")
		found = a.reasons(config.Code)
		require.Len(t, found, 1)
		require.Equal(t, "b has another configuration than this node: the secrets of section SqlSettings differ", found[0].Text)
		require.NotContains(t, fmt.Sprint(a.Members()), canary)

		// Saving once more mends it.
		require.NoError(t, a.Save(t.Context(), set(func(*settings) {}), nil))
		time.Sleep(time.Second)
		require.Equal(t, "one", same(t, []*server{a, b}).SqlSettings.DataSource)
		a.end()
		b.end()
		linger()
	})
}

// A program of another version has other settings: red too, without a false name.
func TestOtherSettingsAreADifference(t *testing.T) {
	type larger struct {
		ServiceSettings service
		SqlSettings     sqlSettings
		More            struct{ X int }
	}
	synctest.Test(t, func(t *testing.T) {
		net := network()
		a := serve(t, host(net, "a"), base(t, ""))
		a.ready(t)
		n, err := cluster.New(host(net, "b"))
		require.NoError(t, err)
		s, err := config.Open(t.Context(), config.Config[larger]{Logger: quiet})
		require.NoError(t, err)
		require.NoError(t, s.Attach(n))
		var wg sync.WaitGroup
		wg.Go(func() { _ = n.Run(t.Context()) })
		wg.Go(func() { _ = s.Run(t.Context()) })
		time.Sleep(10 * time.Second)
		found := a.reasons(config.Code)
		require.Len(t, found, 1)
		require.Contains(t, found[0].Text, "which settings there are differ")

		err = s.Save(t.Context(), func(c *larger) error { c.More.X = 1; return nil }, nil)
		require.ErrorIs(t, err, config.ErrRefused)
		require.ErrorContains(t, err, "setting More.X is not known to this version")
		require.NoError(t, s.Shutdown(t.Context()))
		require.NoError(t, n.Shutdown(t.Context()))
		wg.Wait()
		a.end()
		linger()
	})
}

func TestManySectionsFitIntoATag(t *testing.T) {
	n, err := cluster.New(cluster.Config{Single: true, Logger: quiet})
	require.NoError(t, err)
	cfg := config.Config[many]{Logger: quiet}
	s, err := config.Open(t.Context(), cfg)
	require.NoError(t, err)
	require.NoError(t, s.Attach(n))
	for key, value := range n.Self().Tags {
		require.LessOrEqual(t, len(value), 256, key)
	}
	require.Contains(t, n.Self().Tags, "nines.config.sections")
}

type many struct {
	A1, A2, A3, A4, A5, A6, A7, A8, A9, A10, A11, A12, A13, A14, A15, A16, A17, A18, A19, A20, A21, A22, A23, A24, A25 struct{ X int }
	B1, B2, B3, B4, B5, B6, B7, B8, B9, B10, B11, B12, B13, B14, B15, B16, B17, B18, B19, B20, B21, B22, B23, B24, B25 struct {
		X int `nines:"secret"`
	}
}

// With real sockets, encrypted. On a machine that is too busy members may be taken for failed, and a Save does not wait for those: that all come
// to the same in the end holds all the same. How many there are is the matter of TestConcurrentSavesAreOneAfterTheOther.
func TestRealNodes(t *testing.T) {
	var all []*server
	key := cluster.NewKey()
	for i := range 3 {
		var seeds []string
		for _, s := range all {
			seeds = append(seeds, s.Addr())
		}
		s := serve(t, cluster.Config{
			ClusterName: "test", NodeName: fmt.Sprint("n", i), Keys: [][]byte{key}, BindAddr: "127.0.0.1:0",
			Discovery: cluster.StaticDiscovery(seeds...), Logger: quiet,
		}, base(t, ""))
		t.Cleanup(s.end)
		s.ready(t)
		all = append(all, s)
	}
	require.Eventually(t, func() bool {
		for _, s := range all {
			if len(s.Alive()) != 3 {
				return false
			}
		}
		return true
	}, 20*time.Second, 10*time.Millisecond)
	var wg sync.WaitGroup
	for _, s := range all {
		wg.Go(func() {
			for range 5 {
				if err := s.Save(within(t), set(func(c *settings) { c.ServiceSettings.MaxSockets++ }), nil); err != nil {
					t.Log(err)
				}
			}
		})
	}
	wg.Wait()
	require.Eventually(t, func() bool {
		for _, s := range all {
			if s.Get().ServiceSettings.MaxSockets <= 100 || s.Version() != all[0].Version() || s.Hash() != all[0].Hash() || len(s.Alive()) != 3 || len(s.reasons(config.Code)) > 0 {
				return false
			}
		}
		return true
	}, time.Minute, 10*time.Millisecond)
	t.Log("15 saves made", all[0].Get().ServiceSettings.MaxSockets-100, "at version", all[0].Version())
	file := read(t, all[0].Stats().Path)
	for _, s := range all[1:] {
		require.True(t, bytes.Equal([]byte(file), []byte(read(t, s.Stats().Path))), "the files are identical")
	}
}
