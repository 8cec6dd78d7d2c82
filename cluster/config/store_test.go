package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/cluster/config"
)

const canary = "canary-7c1f"

func TestTheStrongerSourceWins(t *testing.T) {
	s := open(t, `{"servicesettings": {"SiteURL": "file", "MaxSockets": 5}, "SqlSettings": {"DataSource": "file"}}`,
		"APP_SERVICESETTINGS_SITEURL=env", "APP_SERVICESETTINGS_READTIMEOUT=1m30s", "APP_SERVICESETTINGS_ORIGINS=a b",
		`APP_SERVICESETTINGS_HOOKS=[{"URL":"u","Token":"t"}]`, "APP_SERVICESETTINGS_ENABLE=0", `APP_FLAGS={"x":true}`, "HOME=/root", "APP_SQLSETTINGS_MAXOPENCONNS=7")
	c := s.Get()
	require.Equal(t, service{"env", 5, 90 * time.Second, []string{"a", "b"}, false, []hook{{"u", "t"}}}, c.ServiceSettings)
	require.Equal(t, sqlSettings{"postgres", "file", 7}, c.SqlSettings)
	require.Equal(t, map[string]bool{"x": true}, c.Flags)
	require.Zero(t, s.Version())

	byName := map[string]config.Setting{}
	for _, one := range s.Settings() {
		byName[one.Name] = one
	}
	require.Len(t, byName, 12)
	require.Equal(t, config.Setting{
		Name: "ServiceSettings.SiteURL", Section: "ServiceSettings", Value: `"env"`, Source: config.SourceEnvironment,
		Env: "APP_SERVICESETTINGS_SITEURL", Live: true, Override: `"file"`,
	}, byName["ServiceSettings.SiteURL"])
	require.Equal(t, config.SourceFile, byName["ServiceSettings.MaxSockets"].Source)
	require.False(t, byName["ServiceSettings.MaxSockets"].Live)
	require.Equal(t, config.SourceDefault, byName["SqlSettings.DriverName"].Source)
	require.Equal(t, "(secret)", byName["SqlSettings.DataSource"].Value)
	require.True(t, byName["ClusterSettings.NodeName"].Local)
	require.False(t, byName["ClusterSettings.NodeName"].Live, "the section says so")
}

func TestEveryFaultIsNamedWithItsRemedy(t *testing.T) {
	cfg := base(t, `{"ServiceSettings": {"SiteURl2": "x", "MaxSockets": "many", "ReadTimeout": 1.5, "Hooks": [{"Tokne": "`+canary+`"}]}, "SqlSetting": {}, "Flags": 3,
		"SqlSettings": {"DataSource": {"`+canary+`": 1}}}`,
		"APP_SERVICESETTINGS_SITEUR=x", "APP_SERVICESETTINGS_ENABLE=perhaps", "APP_SQLSETTINGS_DATASOURCES="+canary, "APP_SERVICESETTINGS_HOOKS={"+canary)
	_, err := config.Open(t.Context(), cfg)
	require.Error(t, err)
	for _, want := range []string{
		`setting ServiceSettings.SiteURl2 is not known: did you mean SiteURL?`,
		`ServiceSettings.MaxSockets is "many": give a whole number`,
		`ServiceSettings.ReadTimeout is 1.5: give a duration in nanoseconds`,
		`ServiceSettings.Hooks has the field "Tokne", which is not known: did you mean Token?`,
		`setting SqlSetting is not known: did you mean SqlSettings?`,
		`Flags is 3: give an object`,
		`SqlSettings.DataSource is not of the right form: give a text`,
		`environment variable APP_SERVICESETTINGS_SITEUR names no known setting: did you mean APP_SERVICESETTINGS_SITEURL?`,
		`environment variable APP_SERVICESETTINGS_ENABLE is "perhaps": give true or false`,
		`environment variable APP_SQLSETTINGS_DATASOURCES names no known setting: did you mean APP_SQLSETTINGS_DATASOURCE?`,
		`environment variable APP_SERVICESETTINGS_HOOKS is not of the right form: give a list`,
	} {
		require.ErrorContains(t, err, want)
	}
	require.NotContains(t, err.Error(), canary)

	for text, want := range map[string]string{
		"{\n\"a\": }":                          "it is not JSON (invalid character '}' looking for beginning of value, line 2)",
		`{} {}`:                                "something follows",
		`[]`:                                   "the file is not a JSON object",
		`{"SqlSettings": 3}`:                   "SqlSettings is not a JSON object",
		`{"SqlSettings": {"MaxOpenConns": 0}}`: "use at least 1",
		`{"SqlSettings": {"MaxOpenConns": 1e30}}`:            "give a whole number",
		`{"SqlSettings": {"DriverName": ["a", "b"], "x":1}}`: "give a text",
	} {
		_, err := config.Open(t.Context(), base(t, text))
		require.ErrorContains(t, err, want, text)
	}

	type twice struct {
		A   string `json:"a"`
		B   string `json:"A"`
		C   string `nines:"secert"`
		D   func()
		E_F string
		E   struct{ F string }
	}
	_, err = config.Open(t.Context(), config.Config[twice]{EnvPrefix: "A = "})
	for _, want := range []string{"EnvPrefix", `the word "secert"`, "a and A differ only in case", "D is a func(), which JSON cannot hold", "E_F and E.F have the same"} {
		require.ErrorContains(t, err, want)
	}
	_, err = config.Open(t.Context(), config.Config[int]{Path: t.TempDir()})
	require.ErrorContains(t, err, "int is no struct")
	require.ErrorContains(t, err, "is a directory")
}

func TestAcceptedNamesAreKeptInTheFile(t *testing.T) {
	cfg := base(t, `{"Old": {"A": 1}, "SqlSettings": {"Gone": [1, 2], "DriverName": "mysql"}}`, "APP_CHAOS=1")
	cfg.Accept = func(name string) bool {
		return name == "Old" || name == "SqlSettings.Gone" || name == "APP_CHAOS"
	}
	s, err := config.Open(t.Context(), cfg)
	require.NoError(t, err)
	require.Equal(t, []string{"APP_CHAOS", "Old", "SqlSettings.Gone"}, s.Accepted())
	require.NoError(t, s.Save(t.Context(), set(func(c *settings) { c.ServiceSettings.SiteURL = "<x>" }), nil))
	require.Equal(t, `{
  "ServiceSettings": {
    "SiteURL": "<x>"
  },
  "SqlSettings": {
    "DriverName": "mysql",
    "Gone": [
      1,
      2
    ]
  },
  "Old": {
    "A": 1
  }
}
`, read(t, cfg.Path))
}

func TestHashIsOfEffectiveValues(t *testing.T) {
	one := open(t, `{"ServiceSettings": {"SiteURL": "x", "MaxSockets": 100}, "Flags": {"a": true, "b": false}}`)
	other := open(t, "{\"Flags\": {\"b\": false, \"a\": true},\n\n\"ClusterSettings\": {\"NodeName\": \"node7\"}}", "APP_SERVICESETTINGS_SITEURL=x")
	require.Equal(t, one.Hash(), other.Hash(), "order, space, defaults that are written out, local sections and where a value comes from do not matter")
	require.Len(t, one.Hash(), 64)
	require.NotContains(t, one.Sections(), "ClusterSettings")
	require.Equal(t, one.Sections(), other.Sections())

	changed := open(t, `{"Flags": {"b": false, "a": true}}`, "APP_SERVICESETTINGS_SITEURL=y")
	require.NotEqual(t, one.Hash(), changed.Hash(), "the environment is hashed")
	require.NotEqual(t, one.Sections()["ServiceSettings"], changed.Sections()["ServiceSettings"])
	require.Equal(t, one.Sections()["SqlSettings"], changed.Sections()["SqlSettings"])

	// Secrets: that there is one is in the hash, which one is not.
	a, b := open(t, `{"SqlSettings": {"DataSource": "a"}}`), open(t, `{"SqlSettings": {"DataSource": "b"}}`)
	require.Equal(t, a.Hash(), b.Hash())
	require.NotEqual(t, a.Hash(), open(t, "").Hash())
	require.Equal(t, open(t, `{"ServiceSettings": {"Hooks": [{"Token": "a"}]}}`).Hash(), open(t, `{"ServiceSettings": {"Hooks": [{"Token": "b"}]}}`).Hash())
	require.NotEqual(t, open(t, `{"ServiceSettings": {"Hooks": [{"URL": "a"}]}}`).Hash(), open(t, `{"ServiceSettings": {"Hooks": [{"URL": "b"}]}}`).Hash())
}

func TestNoSecretIsShown(t *testing.T) {
	var log bytes.Buffer
	cfg := base(t, `{"SqlSettings": {"DataSource": "`+canary+`"}, "ServiceSettings": {"Hooks": [{"URL": "u", "Token": "`+canary+`"}]}}`)
	cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	n, err := cluster.New(cluster.Config{Single: true, Logger: quiet})
	require.NoError(t, err)
	s, err := config.Open(t.Context(), cfg)
	require.NoError(t, err)
	require.NoError(t, s.Attach(n))
	require.NoError(t, s.Reload(t.Context()))
	write(t, cfg.Path, `{"SqlSettings": {"DataSource": ["`+canary+`"]}}`)
	require.Error(t, s.Reload(t.Context()))
	out := fmt.Sprintf("%v %v %v %v", s.Settings(), s.Stats(), s.Check(t.Context()), n.Self().Tags) + log.String()
	require.NotContains(t, out, canary)
	require.Contains(t, out, `[{"Token":"(secret)","URL":"u"}]`)
}

func TestSaveWritesWhatWasChanged(t *testing.T) {
	cfg := base(t, `{"ServiceSettings": {"SiteURL": "file"}, "ClusterSettings": {"NodeName": "a"}}`, "APP_SERVICESETTINGS_SITEURL=env", "APP_SQLSETTINGS_MAXOPENCONNS=9")
	require.NoError(t, os.Chmod(cfg.Path, 0o640))
	s, err := config.Open(t.Context(), cfg)
	require.NoError(t, err)
	first := s.Get()
	require.NoError(t, s.Save(t.Context(), set(func(c *settings) {
		c.ServiceSettings.Origins = append(c.ServiceSettings.Origins, "o")
		c.ServiceSettings.Enable = false
	}), nil))
	require.JSONEq(t, `{"ServiceSettings": {"SiteURL": "file", "Origins": ["o"], "Enable": false}, "ClusterSettings": {"NodeName": "a"}}`, read(t, cfg.Path),
		"neither the environment nor defaults are written")
	require.JSONEq(t, `{"ServiceSettings": {"SiteURL": "file"}, "ClusterSettings": {"NodeName": "a"}}`, read(t, cfg.Path+".previous"))
	info, err := os.Stat(cfg.Path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o640), info.Mode().Perm())
	require.Equal(t, "env", s.Get().ServiceSettings.SiteURL)
	require.True(t, first.ServiceSettings.Enable, "what Get returned stays as it was")
	require.EqualValues(t, 1, s.Version().Number)

	err = s.Save(t.Context(), set(func(c *settings) { c.ServiceSettings.SiteURL = "new"; c.SqlSettings.MaxOpenConns = 8 }), nil)
	require.ErrorIs(t, err, config.ErrOverridden)
	require.ErrorContains(t, err, "APP_SERVICESETTINGS_SITEURL")
	require.ErrorContains(t, err, "APP_SQLSETTINGS_MAXOPENCONNS")
	require.ErrorContains(t, s.Save(t.Context(), func(*settings) error { return fmt.Errorf("no") }, nil), "no")
	err = open(t, "").Save(t.Context(), set(func(c *settings) { c.SqlSettings.MaxOpenConns = -1 }), nil)
	require.ErrorContains(t, err, "use at least 1")
	require.EqualValues(t, 1, s.Version().Number)

	require.NoError(t, s.Save(t.Context(), set(func(c *settings) { c.Flags = map[string]bool{"x": false} }), nil))
	held := s.Get()
	require.NoError(t, s.Save(t.Context(), set(func(c *settings) { c.Flags["x"] = true }), nil))
	require.False(t, held.Flags["x"], "fn has a copy of its own, maps and lists too")
	require.True(t, s.Get().Flags["x"])
	v := s.Version()
	require.NoError(t, s.Save(t.Context(), set(func(*settings) {}), &config.SaveOptions{If: &v}))
	require.ErrorIs(t, s.Save(t.Context(), set(func(*settings) {}), &config.SaveOptions{If: &v}), config.ErrConflict)

	again, err := config.Open(t.Context(), cfg)
	require.NoError(t, err)
	require.Equal(t, s.Version(), again.Version(), "the version outlives the process")
	require.Equal(t, s.Hash(), again.Hash())
}

func TestReadOnly(t *testing.T) {
	s := open(t, `{"ClusterSettings": {"ReadOnlyConfig": true}}`)
	require.ErrorIs(t, s.Save(t.Context(), set(func(c *settings) { c.ServiceSettings.Enable = false }), nil), config.ErrReadOnly)
	require.True(t, s.Get().ServiceSettings.Enable)
	require.True(t, s.Stats().ReadOnly)
}

func TestReload(t *testing.T) {
	cfg := base(t, `{"ServiceSettings": {"MaxSockets": 5}}`)
	s, err := config.Open(t.Context(), cfg)
	require.NoError(t, err)
	require.NoError(t, s.Check(t.Context()))
	write(t, cfg.Path, `{"ServiceSettings": {"MaxSockets": 6, "Enable": false}}`)
	require.NoError(t, s.Reload(t.Context()))
	require.Equal(t, 6, s.Get().ServiceSettings.MaxSockets)
	require.Equal(t, []string{"ServiceSettings.MaxSockets"}, s.Stats().Pending, "Enable is live")
	err = s.Check(t.Context())
	require.ErrorContains(t, err, "changed and not in use yet: ServiceSettings.MaxSockets")
	require.True(t, err.(interface{ Warning() bool }).Warning())
	require.Equal(t, "restart this node", err.(interface{ Remedy() string }).Remedy())

	write(t, cfg.Path, `{"ServiceSettings": {"MaxSocket": 7}}`)
	require.ErrorContains(t, s.Reload(t.Context()), "did you mean MaxSockets?")
	require.Equal(t, 6, s.Get().ServiceSettings.MaxSockets, "what held still holds")
	require.ErrorContains(t, s.Check(t.Context()), "could not reload")
	write(t, cfg.Path, `{"SqlSettings": {"MaxOpenConns": 0}}`)
	require.ErrorContains(t, s.Reload(t.Context()), "use at least 1", "Validate is asked too")
	require.Equal(t, 6, s.Get().ServiceSettings.MaxSockets)
	write(t, cfg.Path, `{"ServiceSettings": {"MaxSockets": 5}}`)
	require.NoError(t, s.Reload(t.Context()))
	require.NoError(t, s.Check(t.Context()))
	require.NoError(t, os.Remove(cfg.Path))
	require.NoError(t, s.Reload(t.Context()), "no file is an empty one")
	require.Equal(t, 100, s.Get().ServiceSettings.MaxSockets)
}

// A reader of the file never sees half of it, and a link to it stays one.
func TestTheFileIsReplacedWhole(t *testing.T) {
	cfg := base(t, `{}`)
	link := filepath.Join(t.TempDir(), "link.json")
	require.NoError(t, os.Symlink(cfg.Path, link))
	target := cfg.Path
	cfg.Path = link
	s, err := config.Open(t.Context(), cfg)
	require.NoError(t, err)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var torn atomic.Value
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if b, err := os.ReadFile(link); err != nil || !json.Valid(b) {
				torn.Store(fmt.Sprintf("%q %v", b, err))
			}
		}
	})
	for i := range 50 {
		require.NoError(t, s.Save(t.Context(), set(func(c *settings) { c.ServiceSettings.SiteURL = strings.Repeat("x", 10_000*(i%3)) }), nil))
	}
	close(stop)
	wg.Wait()
	require.Nil(t, torn.Load())
	info, err := os.Lstat(link)
	require.NoError(t, err)
	require.NotZero(t, info.Mode()&os.ModeSymlink)
	left, err := filepath.Glob(filepath.Join(filepath.Dir(target), ".*"))
	require.NoError(t, err)
	require.Empty(t, left, "no temporary files stay")

	require.NoError(t, os.RemoveAll(filepath.Dir(target)))
	require.ErrorContains(t, s.Save(t.Context(), set(func(c *settings) { c.ServiceSettings.SiteURL = "lost" }), nil), "cannot be written")
	require.NotEqual(t, "lost", s.Get().ServiceSettings.SiteURL, "what could not be written does not hold")
	require.ErrorContains(t, s.Check(t.Context()), "cannot be written")
}

func TestWatchAndOnChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, "")
		var wg sync.WaitGroup
		wg.Go(func() { require.NoError(t, s.Run(t.Context())) })
		var seen []int
		wg.Go(func() {
			for c := range s.Watch(t.Context()) {
				seen = append(seen, c.ServiceSettings.MaxSockets)
			}
		})
		var changes [][2]int
		stop := s.OnChange(func(old, new *settings) {
			changes = append(changes, [2]int{old.ServiceSettings.MaxSockets, new.ServiceSettings.MaxSockets})
		})
		synctest.Wait()
		for i := range 3 {
			require.NoError(t, s.Save(t.Context(), set(func(c *settings) { c.ServiceSettings.MaxSockets = i }), nil))
			synctest.Wait()
		}
		require.Equal(t, []int{100, 0, 1, 2}, seen)
		require.Equal(t, [][2]int{{100, 0}, {0, 1}, {1, 2}}, changes)
		stop()
		require.NoError(t, s.Save(t.Context(), set(func(c *settings) { c.ServiceSettings.MaxSockets = 3 }), nil))
		synctest.Wait()
		require.Len(t, changes, 3)
		require.NoError(t, s.Shutdown(t.Context()))
		wg.Wait()
	})
}

func TestRunAndShutdownAtAnyTime(t *testing.T) {
	for i := range 20 {
		s := open(t, "")
		n, err := cluster.New(cluster.Config{Single: true, Logger: quiet})
		require.NoError(t, err)
		require.NoError(t, s.Attach(n))
		require.Error(t, s.Attach(n))
		var wg sync.WaitGroup
		for _, fn := range []func(){
			func() { _ = s.Run(t.Context()) },
			func() { _ = n.Run(t.Context()) },
			func() { _ = s.Save(t.Context(), set(func(c *settings) { c.ServiceSettings.MaxSockets++ }), nil) },
			func() { _ = s.Reload(t.Context()) },
			func() { s.OnChange(func(_, _ *settings) {})() },
			func() { s.Stats(); s.Settings(); s.Sections(); _ = s.Check(t.Context()) },
			func() { require.NoError(t, s.Shutdown(t.Context())) },
			func() { require.NoError(t, s.Shutdown(t.Context())) },
		} {
			wg.Go(fn)
		}
		if i%2 == 0 {
			require.NoError(t, n.WaitReady(within(t)))
		}
		require.NoError(t, s.Shutdown(t.Context()))
		require.NoError(t, n.Shutdown(within(t)))
		wg.Wait()
		require.ErrorIs(t, s.Check(t.Context()), config.ErrClosed)
		require.ErrorIs(t, s.Reload(t.Context()), config.ErrClosed)
		require.ErrorIs(t, s.Save(t.Context(), set(func(*settings) {}), nil), config.ErrClosed)
		require.NotNil(t, s.Get())
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(`{"ServiceSettings": {"SiteURL": "x", "Hooks": [{"URL": "a"}]}}`)
	f.Add(`{"Flags": {"a": null}, "SqlSettings": null}`)
	f.Add(`{"sqlsettings": {"MaxOpenConns": 3}, "SqlSettings": {"MaxOpenConns": 4}}`)
	f.Add(`[`)
	f.Fuzz(func(t *testing.T, text string) {
		cfg := base(t, text)
		s, err := config.Open(t.Context(), cfg)
		if err != nil {
			return
		}
		require.NoError(t, s.Save(t.Context(), set(func(*settings) {}), nil))
		again, err := config.Open(t.Context(), cfg)
		require.NoError(t, err, "what was written can be read")
		require.Equal(t, s.Hash(), again.Hash())
		require.NoError(t, again.Save(t.Context(), set(func(*settings) {}), nil))
	})
}
