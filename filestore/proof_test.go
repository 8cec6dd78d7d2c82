package filestore_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/filestore"
	"github.com/nines-go/nines/filestore/dirstore"
	"github.com/nines-go/nines/filestore/internal/nastest"
	"github.com/nines-go/nines/filestore/memstore"
)

type handler = func(ctx context.Context, from string, payload []byte) ([]byte, error)

// net is a cluster in memory: tags, notifications and requests between its members.
type net struct {
	mu      sync.Mutex
	members map[string]*member
}

type member struct {
	net      *net
	id       string
	tags     map[string]string
	handlers map[string]handler
	notify   []chan<- struct{}
	mute     bool // does not answer
}

func (n *net) join(id string) *member {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := &member{net: n, id: id, tags: map[string]string{}, handlers: map[string]handler{}}
	n.members[id] = m
	n.changedLocked()
	return m
}

func (n *net) leave(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.members, id)
	n.changedLocked()
}

func (n *net) changedLocked() {
	for _, m := range n.members {
		for _, c := range m.notify {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}
}

func (m *member) ID() string { return m.id }

func (m *member) Alive() []string {
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	return slices.Sorted(maps.Keys(m.net.members))
}

func (m *member) Notify(c chan<- struct{}) func() {
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	m.notify = append(m.notify, c)
	return func() {}
}

func (m *member) Tag(id, key string) string {
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	if other := m.net.members[id]; other != nil {
		return other.tags[key]
	}
	return ""
}

func (m *member) SetTag(key, value string) error {
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	m.tags[key] = value
	m.net.changedLocked()
	return nil
}

func (m *member) Handle(topic string, fn func(ctx context.Context, from string, payload []byte) ([]byte, error)) func() {
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	m.handlers[topic] = fn
	return func() {}
}

func (m *member) Request(ctx context.Context, to, topic string, payload []byte) ([]byte, error) {
	m.net.mu.Lock()
	var fn handler
	if other := m.net.members[to]; other != nil && !other.mute {
		fn = other.handlers[topic]
	}
	m.net.mu.Unlock()
	if fn == nil {
		return nil, errors.New("no answer")
	}
	return fn(ctx, m.id, payload)
}

// start runs a proof for a member over a store.
func start(t *testing.T, m *member, s *filestore.Store) *filestore.Proof {
	return startEvery(t, m, s, 100*time.Millisecond)
}

func startEvery(t *testing.T, m *member, s *filestore.Store, interval time.Duration) *filestore.Proof {
	return startStale(t, m, s, interval, 0)
}

func startStale(t *testing.T, m *member, s *filestore.Store, interval, stale time.Duration) *filestore.Proof {
	p, err := filestore.NewProof(filestore.ProofConfig{Store: s, Cluster: m, Interval: interval, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	if stale != 0 {
		filestore.SetStaleLimit(p, stale)
	}
	require.Error(t, p.Check(t.Context()), "nothing is proven before the first probe")
	var wg sync.WaitGroup
	wg.Go(func() { require.NoError(t, p.Run(context.Background())) })
	t.Cleanup(func() {
		require.NoError(t, p.Shutdown(context.Background()))
		wg.Wait()
	})
	return p
}

func dir(t *testing.T, path string) *filestore.Store {
	s, err := dirstore.Open(t.Context(), dirstore.Config{Dir: path})
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, 30*time.Second, 5*time.Millisecond, what)
}

func isGreen(p *filestore.Proof) bool { return p.Check(context.Background()) == nil }

func isRed(p *filestore.Proof) bool {
	err := p.Check(context.Background())
	var w interface{ Warning() bool }
	return err != nil && !(errors.As(err, &w) && w.Warning())
}

func TestProofOfOneStore(t *testing.T) {
	n := &net{members: map[string]*member{}}
	path := nastest.Scratch(t)
	var proofs []*filestore.Proof
	for _, id := range []string{"a", "b", "c"} {
		p := start(t, n.join(id), dir(t, path))
		eventually(t, "green", func() bool { return isGreen(p) })
		proofs = append(proofs, p)
	}
	for _, p := range proofs {
		eventually(t, "green", func() bool { return isGreen(p) })
		st := p.Stats()
		require.True(t, st.Ready)
		require.True(t, st.Established)
		require.Equal(t, 2, st.Members)
		require.Equal(t, 2, st.Shared)
		require.Positive(t, st.Visible)
		require.Equal(t, proofs[0].Stats().StoreID, st.StoreID)
	}
	n.mu.Lock()
	n.members["c"].mute = true
	n.mu.Unlock()
	eventually(t, "a member that does not answer is a warning", func() bool { return !isGreen(proofs[0]) })
	require.False(t, isRed(proofs[0]))
	left, err := os.ReadDir(filepath.Join(path, ".nines", "probe"))
	require.NoError(t, err)
	require.Less(t, len(left), 10, "probes are removed")
}

func TestNewProofNamesEveryFault(t *testing.T) {
	var none *member
	_, err := filestore.NewProof(filestore.ProofConfig{Cluster: none, Interval: time.Hour})
	require.ErrorContains(t, err, "ProofConfig.Store")
	require.ErrorContains(t, err, "ProofConfig.Cluster")
	require.ErrorContains(t, err, "1h0m0s")
}

func TestProofShutdownBeforeRunAndTwice(t *testing.T) {
	n := &net{members: map[string]*member{}}
	p, err := filestore.NewProof(filestore.ProofConfig{Store: memstore.Open(), Cluster: n.join("a")})
	require.NoError(t, err)
	require.NoError(t, p.Shutdown(t.Context()))
	require.NoError(t, p.Shutdown(t.Context()))
	require.NoError(t, p.Run(t.Context()))
}
