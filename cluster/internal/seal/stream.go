package seal

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"sync/atomic"
	"time"
)

// HandshakeTimeout bounds Client and Server.
const HandshakeTimeout = 5 * time.Second

const (
	streamMagic = "nines1"
	proofSize   = sha256.Size
	maxKeys     = 16

	statusOK      = 0
	statusKey     = 1
	statusCluster = 2
	statusPlain   = 3 // in plain: one of the two has keys, the other none
	statusName    = 4 // the certificate is refused

	named = 0x80 // in the count of proofs: the name of the process follows them
)

// Streams authenticates and encrypts the streams of one process. It is safe for concurrent use.
type Streams struct {
	cluster string
	keys    atomic.Pointer[[][]byte]
	cert    tls.Certificate

	identity *Identity // nil: certificates are not looked at
}

// NewStreams returns the streams of one process. Without keys they are plain.
func NewStreams(cluster string, keys [][]byte) (*Streams, error) {
	if len(cluster) > 255 {
		return nil, fmt.Errorf("seal: cluster name has %d bytes; use at most 255", len(cluster))
	}
	s := &Streams{cluster: cluster}
	if err := s.SetKeys(keys); err != nil {
		return nil, err
	}
	cert, err := selfSigned()
	if err != nil {
		return nil, fmt.Errorf("seal: certificate: %w", err)
	}
	s.cert = cert
	return s, nil
}

// SetKeys replaces the keys; streams that are open go on.
func (s *Streams) SetKeys(keys [][]byte) error {
	if err := checkKeys(keys); err != nil {
		return err
	}
	if len(keys) > maxKeys {
		return fmt.Errorf("seal: %d keys; use at most %d", len(keys), maxKeys)
	}
	keys = slices.Clone(keys)
	s.keys.Store(&keys)
	return nil
}

// Client protects conn as the side that dialled. It takes conn over: on an error conn is closed. The error wraps ErrKey, ErrCluster or
// ErrFormat where that is the cause. Close of the result does not wait for the peer; what was not read by then is lost.
func (s *Streams) Client(ctx context.Context, conn net.Conn) (net.Conn, error) {
	return s.guard(ctx, conn, s.client)
}

// Server protects conn as the side that accepted, like Client.
func (s *Streams) Server(ctx context.Context, conn net.Conn) (net.Conn, error) {
	return s.guard(ctx, conn, s.server)
}

func (s *Streams) guard(ctx context.Context, conn net.Conn, do func(context.Context, net.Conn, [][]byte) (net.Conn, error)) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, HandshakeTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	out, err := do(ctx, conn, *s.keys.Load())
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		if ctx.Err() != nil && !isVerdict(err) {
			err = fmt.Errorf("no answer to the handshake: %w", context.Cause(ctx))
		}
		return nil, fmt.Errorf("seal: %w", err)
	}
	return out, nil
}

func isVerdict(err error) bool {
	return errors.Is(err, ErrKey) || errors.Is(err, ErrCluster) || errors.Is(err, ErrFormat) || errors.Is(err, ErrCertificate)
}

func (s *Streams) client(ctx context.Context, conn net.Conn, keys [][]byte) (net.Conn, error) {
	if len(keys) == 0 {
		return conn, s.plainClient(conn)
	}
	own, err := s.certificate()
	if err != nil {
		return nil, err
	}
	tc := tls.Client(conn, &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		GetClientCertificate:        func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own, nil },
		InsecureSkipVerify:          true, // the proof below authenticates, bound to this connection
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
	})
	exporter, err := handshake(ctx, tc)
	if err != nil {
		return nil, err
	}
	msg := append([]byte(streamMagic), byte(len(s.cluster)))
	msg = append(msg, s.cluster...)
	if s.identity != nil {
		if err := s.identity.chain(tc.ConnectionState()); err != nil {
			tc.Write(append(msg, 0)) // no proof: the peer learns that it is refused
			return nil, err
		}
		msg = append(msg, byte(len(keys))|named)
	} else {
		msg = append(msg, byte(len(keys)))
	}
	for _, k := range keys {
		msg = append(msg, proof(k, "client", s.cluster, exporter)...)
	}
	if s.identity != nil {
		msg = append(append(msg, byte(len(s.identity.Name))), s.identity.Name...)
	}
	if _, err := tc.Write(msg); err != nil {
		return nil, err
	}
	status, cluster, err := readStatus(tc)
	if err != nil {
		return nil, err
	}
	if status == statusKey {
		return nil, fmt.Errorf("%w: the peer refused all %d keys of this process", ErrKey, len(keys))
	}
	if status == statusName {
		return nil, fmt.Errorf("%w: the peer refused that of this process", ErrCertificate)
	}
	var theirs [proofSize]byte
	if _, err := io.ReadFull(tc, theirs[:]); err != nil {
		return nil, err
	}
	common := slices.IndexFunc(keys, func(k []byte) bool {
		return hmac.Equal(theirs[:], proof(k, "server", cluster, exporter))
	})
	if common < 0 {
		return nil, fmt.Errorf("%w: the peer that answered did not prove one", ErrKey)
	}
	if status != statusOK || cluster != s.cluster {
		return nil, fmt.Errorf("%w: the peer belongs to %q, this process to %q", ErrCluster, cluster, s.cluster)
	}
	if s.identity != nil {
		name, err := readString(tc)
		if err != nil {
			return nil, err
		}
		if err := s.identity.named(tc.ConnectionState().PeerCertificates[0], name); err != nil {
			return nil, err
		}
	}
	return stream{tc, conn, sha256.Sum256(keys[common])}, nil
}

func (s *Streams) server(ctx context.Context, conn net.Conn, keys [][]byte) (net.Conn, error) {
	if len(keys) == 0 {
		return conn, s.plainServer(conn)
	}
	own, err := s.certificate()
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		Certificates:                []tls.Certificate{*own},
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
	}
	if s.identity != nil {
		cfg.ClientAuth = tls.RequestClientCert // verified below, where the peer can be told
	}
	tc := tls.Server(conn, cfg)
	exporter, err := handshake(ctx, tc)
	if errors.Is(err, ErrKey) {
		conn.Write(append([]byte(streamMagic), 0, statusPlain))
	}
	if err != nil {
		return nil, err
	}
	cluster, err := readMagicCluster(tc)
	if err != nil {
		return nil, err
	}
	var n [1]byte
	if _, err := io.ReadFull(tc, n[:]); err != nil {
		return nil, err
	}
	count, isNamed := n[0]&^named, n[0]&named != 0
	switch {
	case n[0] == 0:
		return nil, fmt.Errorf("%w: the peer at %v refused that of this process", ErrCertificate, conn.RemoteAddr())
	case count == 0 || count > maxKeys:
		return nil, fmt.Errorf("%w: %d proofs", ErrFormat, count)
	}
	proofs := make([]byte, int(count)*proofSize)
	if _, err := io.ReadFull(tc, proofs); err != nil {
		return nil, err
	}
	name := ""
	if isNamed {
		if name, err = readString(tc); err != nil {
			return nil, err
		}
	}
	var common []byte
	for _, k := range keys {
		want := proof(k, "client", cluster, exporter)
		for p := range slices.Chunk(proofs, proofSize) {
			if common == nil && hmac.Equal(p, want) {
				common = k
			}
		}
	}
	status := byte(statusOK)
	switch {
	case common == nil: // tell a stranger nothing but that
		tc.Write(append([]byte(streamMagic), 0, statusKey))
		return nil, fmt.Errorf("%w: the peer at %v proved none of the %d keys of this process", ErrKey, conn.RemoteAddr(), len(keys))
	case cluster != s.cluster:
		status = statusCluster
	default:
		if err := s.admit(tc.ConnectionState(), name, isNamed); err != nil {
			tc.Write(append([]byte(streamMagic), 0, statusName))
			return nil, fmt.Errorf("the peer at %v: %w", conn.RemoteAddr(), err)
		}
	}
	msg := append([]byte(streamMagic), byte(len(s.cluster)))
	msg = append(msg, s.cluster...)
	msg = append(msg, status)
	msg = append(msg, proof(common, "server", s.cluster, exporter)...)
	if s.identity != nil {
		msg = append(append(msg, byte(len(s.identity.Name))), s.identity.Name...)
	}
	if _, err := tc.Write(msg); err != nil {
		return nil, err
	}
	if status != statusOK {
		return nil, fmt.Errorf("%w: the peer at %v belongs to %q, this process to %q", ErrCluster, conn.RemoteAddr(), cluster, s.cluster)
	}
	return stream{tc, conn, sha256.Sum256(common)}, nil
}

// admit judges the certificate of a peer that has proven a key.
func (s *Streams) admit(state tls.ConnectionState, name string, isNamed bool) error {
	switch {
	case s.identity == nil && !isNamed:
		return nil
	case s.identity == nil:
		return fmt.Errorf("%w: the peer asks for one and this process runs without", ErrCertificate)
	}
	if err := s.identity.chain(state); err != nil {
		return err
	}
	return s.identity.named(state.PeerCertificates[0], name)
}

func handshake(ctx context.Context, tc *tls.Conn) (exporter []byte, err error) {
	if err := tc.HandshakeContext(ctx); err != nil {
		var plain tls.RecordHeaderError
		if errors.As(err, &plain) {
			if string(plain.RecordHeader[:]) == streamMagic[:len(plain.RecordHeader)] {
				return nil, fmt.Errorf("%w: the peer runs without keys, this process with", ErrKey)
			}
			return nil, fmt.Errorf("%w: no TLS from the peer", ErrFormat)
		}
		return nil, fmt.Errorf("tls: %w", err)
	}
	state := tc.ConnectionState()
	return state.ExportKeyingMaterial("EXPORTER-nines-stream-1", nil, 32)
}

func (s *Streams) plainClient(conn net.Conn) error {
	msg := append([]byte(streamMagic), byte(len(s.cluster)))
	if _, err := conn.Write(append(msg, s.cluster...)); err != nil {
		return err
	}
	status, cluster, err := readStatus(conn)
	switch {
	case errors.Is(err, ErrFormat) || err == nil && status == statusPlain:
		return fmt.Errorf("%w: this process runs without keys, the peer with (or it is none of ours)", ErrKey)
	case err != nil:
		return err
	case status != statusOK || cluster != s.cluster:
		return fmt.Errorf("%w: the peer belongs to %q, this process to %q", ErrCluster, cluster, s.cluster)
	}
	return nil
}

func (s *Streams) plainServer(conn net.Conn) error {
	cluster, err := readMagicCluster(conn)
	if errors.Is(err, ErrFormat) {
		conn.Read(make([]byte, 4096)) // the rest of its greeting: it may not read before that is taken
		conn.Write(append([]byte(streamMagic), 0, statusPlain))
		return fmt.Errorf("%w: this process runs without keys, the peer at %v with (or it is none of ours)", ErrKey, conn.RemoteAddr())
	} else if err != nil {
		return err
	}
	status := byte(statusOK)
	if cluster != s.cluster {
		status = statusCluster
	}
	msg := append([]byte(streamMagic), byte(len(s.cluster)))
	msg = append(msg, s.cluster...)
	if _, err := conn.Write(append(msg, status)); err != nil {
		return err
	}
	if status != statusOK {
		return fmt.Errorf("%w: the peer at %v belongs to %q, this process to %q", ErrCluster, conn.RemoteAddr(), cluster, s.cluster)
	}
	return nil
}

func readMagicCluster(r io.Reader) (string, error) {
	var head [len(streamMagic) + 1]byte
	if _, err := io.ReadFull(r, head[:len(streamMagic)]); err != nil {
		return "", err
	}
	if string(head[:len(streamMagic)]) != streamMagic {
		return "", ErrFormat
	}
	if _, err := io.ReadFull(r, head[len(streamMagic):]); err != nil {
		return "", err
	}
	name := make([]byte, head[len(streamMagic)])
	_, err := io.ReadFull(r, name)
	return string(name), err
}

func readString(r io.Reader) (string, error) {
	var n [1]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return "", err
	}
	b := make([]byte, n[0])
	_, err := io.ReadFull(r, b)
	return string(b), err
}

func readStatus(r io.Reader) (status byte, cluster string, err error) {
	if cluster, err = readMagicCluster(r); err != nil {
		return 0, "", err
	}
	var b [1]byte
	_, err = io.ReadFull(r, b[:])
	return b[0], cluster, err
}

func proof(key []byte, role, cluster string, exporter []byte) []byte {
	derived := hmac.New(sha256.New, key)
	derived.Write([]byte("nines stream 1"))
	h := hmac.New(sha256.New, derived.Sum(nil))
	h.Write([]byte{byte(len(role))})
	h.Write([]byte(role))
	h.Write([]byte{byte(len(cluster))})
	h.Write([]byte(cluster))
	h.Write(exporter)
	return h.Sum(nil)
}

// stream closes the connection below TLS at once: a closing alert would wait for a peer that does not read, and whoever uses the
// stream knows by its own frames where it ended.
type stream struct {
	*tls.Conn
	raw net.Conn
	key [sha256.Size]byte // hash of the key that was proven
}

// Trusts reports whether c, which Client or Server has returned, was authenticated with a key that is still one of ours. Plain streams are
// trusted while there are no keys.
func (s *Streams) Trusts(c net.Conn) bool {
	keys := *s.keys.Load()
	t, ok := c.(stream)
	if !ok {
		return len(keys) == 0
	}
	return slices.ContainsFunc(keys, func(k []byte) bool { return sha256.Sum256(k) == t.key })
}

func (s stream) Close() error { return s.raw.Close() }

func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Unix(0, 0), // never compared
		NotAfter:     time.Unix(1<<33, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
