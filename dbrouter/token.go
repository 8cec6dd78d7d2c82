package dbrouter

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"

	"github.com/nines-go/nines/internal/dialect"
)

// A token is one or more pieces with dots between them, one for each router of the session. A piece is, in base64:
//
//	kind (1 byte) · expiry (4, seconds since 1970) · identity of the cluster (4) · position (varints), at most 40 characters with one timeline or domain
//	signature (16 bytes of HMAC-SHA256 under TokenKey; absent without one)
const (
	kindPosition = 1
	kindPin      = 2 // reads go to the master until the expiry; it says nothing afterwards
	signature    = 16
)

var encoding = base64.RawURLEncoding

// sign makes a piece of what it says.
func sign(key, b []byte) string {
	return encoding.EncodeToString(append(b, mac(key, b)...))
}

func mac(key, b []byte) []byte {
	if len(key) == 0 {
		return nil
	}
	h := hmac.New(sha256.New, key)
	h.Write([]byte("nines dbrouter token 1\x00"))
	h.Write(b)
	return h.Sum(nil)[:signature]
}

// verify returns what a piece says, when key has signed it.
func verify(key []byte, piece string) (b []byte, ok bool) {
	b, err := encoding.DecodeString(piece)
	n := 0
	if len(key) > 0 {
		n = signature
	}
	if err != nil || len(b) < 9+n {
		return nil, false
	}
	b, sum := b[:len(b)-n], b[len(b)-n:]
	return b, subtle.ConstantTimeCompare(sum, mac(key, b)) == 1
}

func head(kind byte, expiry time.Time, identity uint32) []byte {
	b := binary.BigEndian.AppendUint32([]byte{kind}, uint32(max(expiry.Unix(), 0)))
	return binary.BigEndian.AppendUint32(b, identity)
}

// fold has the session go on from a token; one that says nothing to this router sends it to the master.
func (tr *track) fold(token string) {
	t := tr.r.top.Load()
	if len(token) > 1<<12 {
		tr.pinned.Store(true)
		return
	}
	read := false
	for piece := range strings.SplitSeq(token, ".") {
		b, ok := verify(t.cfg.TokenKey, piece)
		read = ok && tr.foldPiece(t, b) || read
	}
	if !read {
		tr.pinned.Store(true)
	}
}

func (tr *track) foldPiece(t *topology, b []byte) bool {
	expiry := time.Unix(int64(binary.BigEndian.Uint32(b[1:])), 0)
	if identity := binary.BigEndian.Uint32(b[5:]); identity != tr.r.identity.Load() {
		return false
	}
	switch b[0] {
	case kindPosition:
		if time.Now().After(expiry) {
			return false
		}
		p, ok := parsePosition(b[9:])
		if !ok || t.dialect == dialect.Postgres && len(p) != 1 {
			return false
		}
		tr.raise(t.dialect, p)
		later(&tr.wrote, expiry.Add(-t.cfg.TokenTTL).UnixNano())
	case kindPin:
		if expiry.After(time.Now()) {
			later(&tr.until, expiry.UnixNano())
		}
	default:
		return false
	}
	return true
}

// Token returns what another request, process or node gives to WithToken, so that its reads see what this session has written and read. It asks
// the database where it stands when the session has not done so yet; when the database does not answer, the token sends
// reads to the master for a minute. It fails only when ctx ends or the router is closed. A session that has used no database has the
// tokens that it was given.
//
// With Config.TokenKey tokens are signed. Without one anybody may make them: then let them travel between your own servers only.
func (s *Session) Token(ctx context.Context) (string, error) {
	head := s.tracks.Load()
	if head == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		return strings.Join(s.tokens, "."), nil
	}
	var pieces []string
	for tr := head; tr != nil; tr = tr.next {
		piece, err := tr.token(ctx)
		if err != nil {
			return "", err
		}
		if piece != "" {
			pieces = append(pieces, piece)
		}
	}
	return strings.Join(pieces, "."), nil
}

func (tr *track) token(ctx context.Context) (string, error) {
	t := tr.r.top.Load()
	if t.closed {
		return "", ErrClosed
	}
	if t.dialect == dialect.SQLite {
		return "", nil
	}
	asked, ok := false, true
	var shown position
	if tr.pinned.Load() || tr.until.Load() != 0 {
		var at position
		var err error
		if at, err = tr.r.ask(t.master).wait(ctx); err == nil {
			tr.raise(t.dialect, at)
			asked = true
		} else {
			ok = false
		}
	}
	if ok && !asked {
		if asked, ok = tr.price(ctx, t); ok && !asked {
			if last := tr.last.Load(); last != nil {
				shown, ok = tr.shown(ctx, t, last)
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	pin := func(until time.Time) (string, error) {
		return sign(t.cfg.TokenKey, head(kindPin, until.Add(time.Second), tr.r.identity.Load())), nil // whole seconds: the next one
	}
	if !ok {
		return pin(time.Now().Add(min(t.cfg.TokenTTL, time.Minute)))
	}
	need := tr.needs().merge(t.dialect, shown)
	if len(need) == 0 {
		if until := time.Unix(0, tr.wrote.Load()).Add(ownPin); until.After(time.Now()) {
			return pin(until)
		}
		return "", nil
	}
	return sign(t.cfg.TokenKey, need.append(head(kindPosition, time.Now().Add(t.cfg.TokenTTL), tr.r.identity.Load()))), nil
}

// later raises v to n.
func later(v interface {
	Load() int64
	CompareAndSwap(old, new int64) bool
}, n int64) {
	for {
		old := v.Load()
		if old >= n || v.CompareAndSwap(old, n) {
			return
		}
	}
}
