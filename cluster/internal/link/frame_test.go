package link_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster/internal/link"
)

var update = flag.Bool("update", false, "write testdata")

// TestGoldenFrames keeps the bytes on the wire as they are: processes of two versions meet in a rolling upgrade.
func TestGoldenFrames(t *testing.T) {
	var b strings.Builder
	for _, g := range link.GoldenFrames() {
		what, err := link.Decode(g.Bytes)
		if err != nil {
			what = err.Error()
		}
		fmt.Fprintf(&b, "%s\n  %s\n  %s\n", g.Name, hex.EncodeToString(g.Bytes), what)
	}
	const file = "testdata/frames.txt"
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), b.String())
}

func TestFragments(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var payloads [][]byte
	for _, n := range []int{0, 1, link.MaxWhole - 1, link.MaxWhole, link.MaxWhole + 1, 2*link.MaxWhole - 4, 2*link.MaxWhole - 3, 1 << 20, 3} {
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(rnd.Uint32())
		}
		payloads = append(payloads, p)
	}
	got, err := link.Assemble(link.Encode(payloads...))
	require.NoError(t, err)
	require.Len(t, got, len(payloads))
	for i := range got {
		require.True(t, bytes.Equal(payloads[i], got[i]), "payload of %d bytes", len(payloads[i]))
	}
}

func FuzzDecode(f *testing.F) {
	for _, g := range link.GoldenFrames() {
		f.Add(g.Bytes)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		link.Decode(b)
		link.Assemble(b)
	})
}

// FuzzReceive: what comes out of a reader does not depend on how the bytes came in, and it takes no harm from any.
func FuzzReceive(f *testing.F) {
	for _, g := range link.GoldenFrames() {
		f.Add(g.Bytes, 1)
	}
	stream := link.Encode([]byte("one"), nil, make([]byte, 200), []byte("two"))
	f.Add(stream, 5)
	f.Add(append(link.RawFrame(99, 0, 0, 0, []byte("later")), stream...), 17)
	f.Add(append(bytes.Clone(stream), stream...), 1000) // a repetition
	f.Add(link.RawFrame(98, link.FlagSequenced, link.Live, 1, []byte("later, counted")), 3)
	f.Fuzz(func(t *testing.T, b []byte, step int) {
		if len(b) > 64<<10 {
			return
		}
		whole, bad := link.Receive(b, len(b)+1)
		pieces, badToo := link.Receive(b, 1+int(uint(step)%100))
		require.Equal(t, bad, badToo)
		require.Equal(t, whole, pieces)
	})
}

// stranger connects by hand to a process.
func stranger(t *testing.T, w *wire, to string, number uint64) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", w.addr[to])
	require.NoError(t, err)
	t.Cleanup(func() { nc.Close() })
	require.NoError(t, link.Stranger(nc, "stranger", "test", number))
	return nc
}

func TestUnknownFrames(t *testing.T) {
	w := newWire(t)
	got := newCounter()
	a := w.start("a", link.Config{OnFrame: got.onFrame})
	nc := stranger(t, w, "a", 1)
	send := func(frames ...[]byte) {
		for _, f := range frames {
			_, err := nc.Write(f)
			require.NoError(t, err)
		}
	}
	data := func(seq uint64) []byte {
		return link.RawFrame(link.TypeData, link.FlagCritical|link.FlagSequenced, link.Live, seq, numbered((seq-1)/2, 3))
	}
	send(data(1),
		link.RawFrame(99, 0, 0, 0, []byte("of a later version")),
		link.RawFrame(98, link.FlagSequenced, link.Live, 2, []byte("of a later version, counted")),
		data(3), data(3)) // the second is a repetition
	eventually(t, func() bool { return got.got("stranger", link.Live) == 2 }, "unknown frames are skipped")
	send(link.RawFrame(99, link.FlagCritical, 0, 0, nil))
	link.Drain(nc)
	eventually(t, func() bool { return !a.Up("stranger") }, "an unknown critical frame ends the link")
	got.check(t)
}

func TestWhatAPeerMustNotSendEndsTheConnection(t *testing.T) {
	w := newWire(t)
	got := newCounter()
	a := w.start("a", link.Config{OnFrame: got.onFrame, Window: 2 * link.ChunkSize})
	for i, bad := range [][]byte{
		link.RawFrame(link.TypeData, link.FlagSequenced, link.Live, 7, numbered(0, 3)),                 // a hole
		link.RawFrame(link.TypeData, link.FlagSequenced, 3, 1, numbered(0, 3)),                         // no such lane
		link.RawFrame(link.TypeData, 0, link.Live, 0, numbered(0, 3)),                                  // without a number
		link.RawFrame(link.TypeData, 0, link.Live, 1, numbered(0, 3)),                                  // number without the flag
		link.RawFrame(link.TypeData, link.FlagSequenced, link.Live, 1, make([]byte, 2*link.ChunkSize)), // above the credit
		link.RawFrame(1, link.FlagCritical, 0, 0, nil),                                                 // a handshake out of place
		{0, 0, 0, 1},
		{255, 255, 255, 255},
	} {
		nc := stranger(t, w, "a", uint64(i+1))
		_, err := nc.Write(bad)
		require.NoError(t, err)
		link.Drain(nc)
		eventually(t, func() bool { return !a.Up("stranger") }, "ended")
	}
	require.Zero(t, got.got("stranger", link.Live))
}

func TestAHandshakeIsChecked(t *testing.T) {
	w := newWire(t)
	w.start("a", link.Config{})
	for _, c := range []struct{ id, cluster, says string }{
		{"x", "other", `cluster \"other\" is not \"test\"`},
		{"a", "test", "the same process"},
	} {
		nc, err := net.Dial("tcp", w.addr["a"])
		require.NoError(t, err)
		require.ErrorContains(t, link.Stranger(nc, c.id, c.cluster, 1), c.says)
		nc.Close()
	}
}

// TestALateDialEndsNothing: a HELLO that its sender has left behind reaches a process that has a good connection by now.
func TestALateDialEndsNothing(t *testing.T) {
	w := newWire(t)
	a := w.start("a", link.Config{})
	call := func(number uint64, lastDialer string, last uint64) error {
		nc, err := net.Dial("tcp", w.addr["a"])
		require.NoError(t, err)
		t.Cleanup(func() { nc.Close() })
		return link.StrangerAfter(nc, "stranger", "test", number, lastDialer, last)
	}
	require.NoError(t, call(5, "", 0))
	eventually(t, func() bool { return a.Up("stranger") }, "link")
	require.ErrorContains(t, call(4, "", 0), "refused")
	require.ErrorContains(t, call(5, "", 0), "refused")
	require.True(t, a.Up("stranger"))
	require.EqualValues(t, 1, a.Stats().Peers["stranger"].Connections)
	require.NoError(t, call(6, "", 0), "a later one of the same side knows better")

	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	w.mu.Lock()
	w.addr["z"] = l.Addr().String()
	w.mu.Unlock()
	a.Connect("z")
	nc, err := l.Accept()
	require.NoError(t, err)
	defer nc.Close()
	number, err := link.AcceptByHand(nc, "z", "test")
	require.NoError(t, err)
	eventually(t, func() bool { return a.Up("z") }, "dialled by a")
	z := func(lastDialer string, last uint64) error {
		nc, err := net.Dial("tcp", w.addr["a"])
		require.NoError(t, err)
		t.Cleanup(func() { nc.Close() })
		return link.StrangerAfter(nc, "z", "test", 1, lastDialer, last)
	}
	require.ErrorContains(t, z("", 0), "refused", "sent before z knew the connection that is up")
	require.True(t, a.Up("z"))
	require.NoError(t, z("a", number), "sent by a z that has known it and takes it for lost")
}
