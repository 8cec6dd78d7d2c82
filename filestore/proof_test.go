package filestore_test

import (
	"context"
	"errors"
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
	p, err := filestore.NewProof(filestore.ProofConfig{Store: s, Cluster: m, Interval: 100 * time.Millisecond})
	require.NoError(t, err)
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
	require.Eventually(t, ok, 20*time.Second, 10*time.Millisecond, what)
}

func isRed(p *filestore.Proof) bool {
	err := p.Check(context.Background())
	var w interface{ Warning() bool }
	return err != nil && !(errors.As(err, &w) && w.Warning())
}

func TestProofOfOneStore(t *testing.T) {
	n := &net{members: map[string]*member{}}
	path := t.TempDir()
	var proofs []*filestore.Proof
	for _, id := range []string{"a", "b", "c"} {
		p := start(t, n.join(id), dir(t, path))
		eventually(t, "green", func() bool { return p.Check(t.Context()) == nil })
		proofs = append(proofs, p)
	}
	for _, p := range proofs {
		eventually(t, "green", func() bool { return p.Check(t.Context()) == nil })
	}
	n.mu.Lock()
	n.members["c"].mute = true
	n.mu.Unlock()
	eventually(t, "a member that does not answer is a warning", func() bool { return proofs[0].Check(t.Context()) != nil })
	require.False(t, isRed(proofs[0]))
}

// What a wrong configuration looks like, and that it is found before anything is written by users.
func TestProofFindsStoresThatAreNotShared(t *testing.T) {
	for name, second := range map[string]func(t *testing.T, first string) *filestore.Store{
		"private directory": func(t *testing.T, _ string) *filestore.Store { return dir(t, t.TempDir()) },
		"private memory":    func(*testing.T, string) *filestore.Store { return memstore.Open() },
		"copy with the same ID": func(t *testing.T, first string) *filestore.Store {
			clone := filepath.Join(t.TempDir(), "clone")
			require.NoError(t, os.CopyFS(clone, os.DirFS(first)))
			return dir(t, clone)
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := &net{members: map[string]*member{}}
			path := t.TempDir()
			first := start(t, n.join("a"), dir(t, path))
			eventually(t, "green", func() bool { return first.Check(t.Context()) == nil })
			p := start(t, n.join("b"), second(t, path))
			eventually(t, "the newcomer is red", func() bool {
				return isRed(p) && errors.Is(p.Check(t.Context()), filestore.ErrNotShared)
			})
			var r interface{ Remedy() string }
			require.ErrorAs(t, p.Check(t.Context()), &r)
			require.NotEmpty(t, r.Remedy())
		})
	}
}

// The disk goes away under a running node: the empty mount point below it must not become a store of its own.
func TestProofFindsAnUnmountedDisk(t *testing.T) {
	n := &net{members: map[string]*member{}}
	path := t.TempDir()
	first := start(t, n.join("a"), dir(t, path))
	eventually(t, "green", func() bool { return first.Check(t.Context()) == nil })
	second := start(t, n.join("b"), dir(t, path))
	eventually(t, "green", func() bool { return second.Check(t.Context()) == nil })
	require.NoError(t, os.RemoveAll(filepath.Join(path, ".nines")))
	eventually(t, "red", func() bool { return isRed(first) && isRed(second) })
	require.NoFileExists(t, filepath.Join(path, ".nines", "store-id"))
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
