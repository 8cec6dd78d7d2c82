package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/nines-go/nines/cluster/internal/seal"
)

const maxKeys = 16

// ring holds the keys, which may change while the Node runs.
type ring struct {
	mu      sync.Mutex
	keys    [][]byte
	streams *seal.Streams   // nil before Run
	packets *seal.Datagrams // nil before the ID is known
}

func newRing(keys [][]byte) *ring { return &ring{keys: cloneKeys(keys)} }

func cloneKeys(keys [][]byte) [][]byte {
	c := make([][]byte, len(keys))
	for i, k := range keys {
		c[i] = bytes.Clone(k)
	}
	return c
}

// all returns the keys; the caller must not change them.
func (r *ring) all() [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keys
}

func (r *ring) openStreams(cluster string) (*seal.Streams, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, err := seal.NewStreams(cluster, r.keys)
	r.streams = s
	return s, err
}

func (r *ring) openPackets(id, cluster string) (*seal.Datagrams, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d, err := seal.NewDatagrams(id, cluster, r.keys)
	r.packets = d
	return d, err
}

func (r *ring) set(keys [][]byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.streams != nil {
		if err := r.streams.SetKeys(keys); err != nil {
			return err
		}
	}
	if r.packets != nil {
		if err := r.packets.SetKeys(keys); err != nil {
			return err
		}
	}
	r.keys = keys
	return nil
}

func checkKeys(keys [][]byte) error {
	var errs []error
	for i, key := range keys {
		if len(key) != KeySize {
			errs = append(errs, fmt.Errorf("cluster: Keys[%d] has %d bytes; use %d, as ParseKey returns", i, len(key), KeySize))
		}
		if j := slices.IndexFunc(keys[:i], func(k []byte) bool { return bytes.Equal(k, key) }); j >= 0 {
			errs = append(errs, fmt.Errorf("cluster: Keys[%d] and Keys[%d] are the same; remove one", j, i))
		}
	}
	if len(keys) > maxKeys {
		errs = append(errs, fmt.Errorf("cluster: Keys has %d; use at most %d", len(keys), maxKeys))
	}
	return errors.Join(errs...)
}

// SetKeys replaces Config.Keys of a Node that may be running: the first one seals from then on, all of them open. No message is lost by it,
// and no member, if a key is replaced in three steps, each done on every node before the next one begins:
//
//	SetKeys([][]byte{old, new}) // everybody can read new
//	SetKeys([][]byte{new, old}) // everybody writes new
//	SetKeys([][]byte{new})      // nobody takes old any more
//
// Links that were authenticated with a key that is gone are made anew, and what was on its way in them is sent again. It returns an error,
// and changes nothing, when there is no key, a key has not 32 bytes, one is there twice, there are more than 16, or the Node runs without keys.
// Config.Keys of the next start is the caller's to change.
func (n *Node) SetKeys(keys [][]byte) error {
	switch {
	case n.life.Closed():
		return ErrClosed
	case n.cfg.InsecureNoKeys:
		return errors.New("cluster: SetKeys: this Node runs with InsecureNoKeys; start it with Keys instead")
	case len(keys) == 0:
		return errors.New("cluster: SetKeys: Keys is empty; make a key with keygen and give the same one to all nodes")
	}
	if err := checkKeys(keys); err != nil {
		return err
	}
	if err := n.ring.set(cloneKeys(keys)); err != nil {
		return fmt.Errorf("cluster: SetKeys: %w", err)
	}
	n.log.Info("keys replaced", "count", len(keys))
	if n.isRunning() && !n.cfg.Single {
		n.mesh.Renew()
		n.kickReach()
	}
	return nil
}

// kickReach has those looked for that may be reached now.
func (n *Node) kickReach() {
	select {
	case n.again <- struct{}{}:
	default:
	}
}
