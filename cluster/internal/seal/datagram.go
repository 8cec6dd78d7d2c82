package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	datagramPlain  = 0xE0 // first byte; no datagram of memberlist or TLS starts so
	datagramSealed = 0xE1
	saltSize       = 16 // 8 bytes start time, 8 bytes random
	tagSize        = 16

	// Window is how far behind the newest sequence of a sender a datagram may be.
	Window = 1024

	maxSenders = 4096 // replay windows that are kept; the longest silent one is dropped above
)

// Datagrams seals and opens the datagrams of one process. It is safe for concurrent use.
type Datagrams struct {
	sender  string
	cluster string
	salt    [saltSize]byte
	seq     atomic.Uint64
	seal    atomic.Pointer[sealer]

	mu      sync.Mutex
	keys    [][]byte
	senders map[string]*senderState
}

type sealer struct{ aead cipher.AEAD } // aead nil: plain

type senderState struct {
	salt  [saltSize]byte
	aeads []cipher.AEAD // one for each key, made when needed
	last  time.Time
	window
}

// NewDatagrams returns the sealing of one process: sender is its ID, at most 255 bytes.
func NewDatagrams(sender, cluster string, keys [][]byte) (*Datagrams, error) {
	if len(sender) == 0 || len(sender) > 255 {
		return nil, fmt.Errorf("seal: sender has %d bytes; use 1 to 255", len(sender))
	}
	if len(cluster) > 255 {
		return nil, fmt.Errorf("seal: cluster name has %d bytes; use at most 255", len(cluster))
	}
	d := &Datagrams{sender: sender, cluster: cluster, senders: make(map[string]*senderState)}
	binary.BigEndian.PutUint64(d.salt[:8], uint64(time.Now().UnixNano()))
	rand.Read(d.salt[8:])
	if err := d.SetKeys(keys); err != nil {
		return nil, err
	}
	return d, nil
}

// SetKeys replaces the keys; datagrams that are on their way under a key that is gone are lost.
func (d *Datagrams) SetKeys(keys [][]byte) error {
	if err := checkKeys(keys); err != nil {
		return err
	}
	s := &sealer{}
	if len(keys) > 0 {
		s.aead = datagramAEAD(keys[0], d.salt, d.cluster, d.sender)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.keys = slices.Clone(keys)
	for _, st := range d.senders {
		st.aeads = make([]cipher.AEAD, len(keys))
	}
	d.seal.Store(s)
	return nil
}

// Overhead is by how many bytes Seal makes a datagram longer.
func (d *Datagrams) Overhead() int {
	n := 1 + 1 + len(d.sender) + saltSize + 8
	if d.seal.Load().aead == nil {
		return n + 1 + len(d.cluster)
	}
	return n + tagSize
}

// Seal appends the sealed plaintext to dst and returns it. dst must not overlap plaintext.
func (d *Datagrams) Seal(dst, plaintext []byte) []byte {
	s := d.seal.Load()
	kind := byte(datagramSealed)
	if s.aead == nil {
		kind = datagramPlain
	}
	seq := d.seq.Add(1)
	start := len(dst)
	dst = append(dst, kind, byte(len(d.sender)))
	dst = append(dst, d.sender...)
	dst = append(dst, d.salt[:]...)
	dst = binary.BigEndian.AppendUint64(dst, seq)
	if s.aead == nil {
		dst = append(dst, byte(len(d.cluster)))
		dst = append(dst, d.cluster...)
		return append(dst, plaintext...)
	}
	return s.aead.Seal(dst, nonce(seq), plaintext, dst[start:])
}

// Open appends the plaintext of a sealed datagram to dst and returns it with the sender's ID. dst must not overlap packet.
// Errors are ErrFormat, ErrKey, ErrCluster and ErrReplay; a wrong cluster of a protected datagram shows as ErrKey.
func (d *Datagrams) Open(dst, packet []byte) (plaintext []byte, sender string, err error) {
	if len(packet) < 2 || (packet[0] != datagramPlain && packet[0] != datagramSealed) {
		return nil, "", ErrFormat
	}
	n := 2 + int(packet[1])
	header := n + saltSize + 8
	if packet[1] == 0 || len(packet) < header {
		return nil, "", ErrFormat
	}
	sender = string(packet[2:n])
	salt := [saltSize]byte(packet[n:])
	seq := binary.BigEndian.Uint64(packet[n+saltSize:])
	body := packet[header:]

	if sealed, want := packet[0] == datagramSealed, d.seal.Load().aead != nil; sealed != want {
		return nil, sender, ErrKey
	} else if !sealed {
		if len(body) < 1 || len(body) < 1+int(body[0]) {
			return nil, sender, ErrFormat
		}
		if string(body[1:1+body[0]]) != d.cluster {
			return nil, sender, ErrCluster
		}
		plaintext = append(dst, body[1+body[0]:]...)
	} else if plaintext, err = d.decrypt(dst, sender, salt, seq, body, packet[:header]); err != nil {
		return nil, sender, err
	}
	if !d.fresh(sender, salt, seq) {
		return nil, sender, ErrReplay
	}
	return plaintext, sender, nil
}

func (d *Datagrams) decrypt(dst []byte, sender string, salt [saltSize]byte, seq uint64, body, header []byte) ([]byte, error) {
	d.mu.Lock()
	keys := d.keys
	var aeads []cipher.AEAD
	if st := d.senders[sender]; st != nil && st.salt == salt {
		for i, key := range keys { // a known process: its keys are made once
			if st.aeads[i] == nil {
				st.aeads[i] = datagramAEAD(key, salt, d.cluster, sender)
			}
		}
		aeads = st.aeads
	}
	d.mu.Unlock()
	for i, key := range keys {
		aead := cipher.AEAD(nil)
		if aeads != nil {
			aead = aeads[i]
		} else {
			aead = datagramAEAD(key, salt, d.cluster, sender)
		}
		if plaintext, err := aead.Open(dst, nonce(seq), body, header); err == nil {
			return plaintext, nil
		}
	}
	return nil, ErrKey
}

// fresh takes the sequence of an authentic datagram, once.
func (d *Datagrams) fresh(sender string, salt [saltSize]byte, seq uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	st := d.senders[sender]
	switch {
	case st == nil:
		if len(d.senders) >= maxSenders {
			d.dropOldestLocked()
		}
		st = &senderState{salt: salt, aeads: make([]cipher.AEAD, len(d.keys))}
		d.senders[sender] = st
	case st.salt == salt:
	case string(salt[:]) > string(st.salt[:]): // started again
		*st = senderState{salt: salt, aeads: make([]cipher.AEAD, len(d.keys))}
	default:
		return false
	}
	st.last = time.Now()
	return st.take(seq)
}

func (d *Datagrams) dropOldestLocked() {
	oldest, at := "", time.Now()
	for id, st := range d.senders {
		if oldest == "" || st.last.Before(at) {
			oldest, at = id, st.last
		}
	}
	delete(d.senders, oldest)
}

func datagramAEAD(key []byte, salt [saltSize]byte, cluster, sender string) cipher.AEAD {
	info := "nines datagram 1\x00" + string(byte(len(cluster))) + cluster + sender
	sub, err := hkdf.Key(sha256.New, key, salt[:], info, 32)
	if err != nil {
		panic("seal: " + err.Error()) // only for lengths that are not ours
	}
	block, err := aes.NewCipher(sub)
	if err != nil {
		panic("seal: " + err.Error())
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic("seal: " + err.Error())
	}
	return aead
}

func nonce(seq uint64) []byte {
	var n [12]byte
	binary.BigEndian.PutUint64(n[4:], seq)
	return n[:]
}

func checkKeys(keys [][]byte) error {
	for i, k := range keys {
		if len(k) != 32 {
			return fmt.Errorf("seal: key %d has %d bytes; a key has 32", i, len(k))
		}
	}
	return nil
}
