package wire_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/wsfanout/internal/wire"
)

var update = flag.Bool("update", false, "write testdata/frames.txt anew: only together with a new version")

// samples has every message with every field set, and every list with and without entries.
func samples() []wire.Message {
	term := func(n uint64, node string) wire.Term { return wire.Term{N: n, Node: node} }
	pos := func(n uint64, node string, o uint64) wire.Position {
		return wire.Position{Epoch: term(n, node), Offset: o}
	}
	p := wire.P{Part: 1023}
	rec := &wire.Record{Position: pos(1, "A", 7), Kind: wire.Data, ID: "m7", Data: []byte("seven")}
	gap := &wire.Record{Position: pos(2, "B", 8), Kind: wire.Gap, ID: "fork:1.A:7", Data: []byte("fork")}
	eph := &wire.Record{Kind: wire.Ephemeral, Data: []byte("typing")}
	open := wire.Open{Term: term(3, "C"), Replica: "A", Known: true, Left: true}
	cp := &wire.Copy{
		Acc: term(2, "B"), Length: 300, Token: true, Floor: 5, FloorBy: term(1, "A"),
		Lineage: []wire.Lineage{{Epoch: term(1, "A"), Verified: true}, {Epoch: term(2, "B")}},
		Topics: []wire.Topic{
			{Name: "room/1", Born: pos(1, "A", 5), From: term(1, "A"), Base: pos(1, "A", 6), Tail: true, Older: true, Marks: []wire.Mark{pos(1, "A", 7)}, Records: []*wire.Record{rec, gap}, Committed: 8},
			{Name: "room/2"},
		},
		Window: []wire.Window{{Topic: "room/1", ID: "m7", At: pos(1, "A", 7)}, {Topic: "room/1", ID: "\x00fork:1.A:7", At: pos(2, "B", 8)}},
	}
	cur := wire.Cursor{Pos: pos(1, "A", 6), Seen: []wire.Position{pos(1, "A", 6), pos(2, "B", 1)}, Last: "m6"}
	return []wire.Message{
		&wire.Prepare{P: p, G: term(2, "B"), Replica: "C"},
		&wire.Promise{P: p, G: term(2, "B"), Copy: cp, Open: []wire.Open{open, {Term: term(4, "D")}}, Active: term(1, "A"), Replica: "B", View: []string{"A", "B", "C"}},
		&wire.Promise{P: wire.P{}, G: term(2, "B")},
		&wire.ViewUpdate{P: p, G: term(2, "B"), View: []string{"C"}},
		&wire.Nack{P: p, Refused: term(1, "A"), Promised: open},
		&wire.Install{P: p, G: term(2, "B"), Copy: cp},
		&wire.Installed{P: p, G: term(2, "B"), Whole: true},
		&wire.Active{P: p, G: term(2, "B"), Replica: "C"},
		&wire.Offer{P: p, T: open},
		&wire.Pub{P: p, Topic: "room/1", ID: "m9", Data: []byte("nine"), Ephemeral: true},
		&wire.PubAck{P: p, Topic: "room/1", ID: "m9", At: pos(2, "B", 9), Copies: 2, NoReplica: true},
		&wire.Rep{P: p, G: term(2, "B"), Topic: "room/1", Prev: pos(1, "A", 6), Record: rec},
		&wire.RepAck{P: p, G: term(2, "B"), Topic: "room/1", Offset: 1 << 40},
		&wire.Sub{P: p, G: term(2, "B"), Request: 77, Topic: "room/1", Cursor: cur, Only: true},
		&wire.SubOK{P: p, G: term(2, "B"), Request: 77, Topic: "room/1", Answer: wire.GapAnswer, Reason: "epoch_changed", Start: pos(1, "A", 6), Records: []*wire.Record{rec, gap}, Only: true},
		&wire.Live{P: p, G: term(2, "B"), Topic: "room/1", Prev: term(1, "A"), Record: gap},
		&wire.Live{P: p, G: term(2, "B"), Topic: "room/1", Record: eph},
		&wire.Confirm{P: p, G: term(2, "B"), Number: 3},
		&wire.Confirmed{P: p, G: term(2, "B"), Number: 3},
		&wire.Return{P: p, G: term(2, "B"), Tips: []wire.Tip{{Topic: "room/1", At: pos(1, "A", 7)}}},
		&wire.ReturnOK{P: p, G: term(2, "B")},
		&wire.Unsub{P: p, G: term(2, "B"), Request: 77, Topic: "room/1"},
		&wire.Digest{P: p, G: term(2, "B"), Hash: 1<<64 - 1},
		&wire.Resub{P: p, G: term(2, "B")},
		&wire.Fetch{P: p, Topic: "room/1", Before: pos(1, "A", 6)},
		&wire.Backfill{P: p, Topic: "room/1", Before: pos(2, "B", 8), Base: pos(1, "A", 6), Records: []*wire.Record{rec, gap}, Older: true},
		&wire.Bye{},
	}
}

func TestEveryMessageComesBack(t *testing.T) {
	for _, m := range samples() {
		frames := wire.Encode([]wire.Message{m})
		require.Len(t, frames, 1)
		got, err := wire.Decode(frames[0])
		require.NoError(t, err, "%T", m)
		require.Equal(t, []wire.Message{m}, got)
	}
	frames := wire.Encode(samples())
	require.Len(t, frames, 1)
	got, err := wire.Decode(frames[0])
	require.NoError(t, err)
	require.Equal(t, samples(), got)
}

// TestGoldenFrames keeps what is on the wire: a change here is a new version.
func TestGoldenFrames(t *testing.T) {
	var b strings.Builder
	for _, m := range samples() {
		fmt.Fprintf(&b, "%T %s\n", m, hex.EncodeToString(wire.Encode([]wire.Message{m})[0]))
	}
	fmt.Fprintf(&b, "all %s\n", hex.EncodeToString(wire.Encode(samples())[0]))
	const file = "testdata/frames.txt"
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), b.String())
}

func TestCutAndChangedFramesAreRefusedOrRead(t *testing.T) {
	for _, m := range samples() {
		frame := wire.Encode([]wire.Message{m})[0]
		for i := range frame {
			if i == 1 {
				continue // the version alone is an empty frame
			}
			_, err := wire.Decode(frame[:i])
			require.ErrorIs(t, err, wire.ErrFrame, "%T cut at %d", m, i)
		}
		for i := range frame {
			for _, x := range []byte{1, 0x80, 0xff} {
				bad := bytes.Clone(frame)
				bad[i] ^= x
				_, _ = wire.Decode(bad) // it must not panic
			}
		}
	}
	_, err := wire.Decode([]byte{wire.Version + 1})
	require.ErrorIs(t, err, wire.ErrFrame)
}

func TestUnknownMessagesAreLeftOut(t *testing.T) {
	frame := wire.Encode([]wire.Message{&wire.Installed{P: wire.P{Part: 1}, G: wire.Term{N: 1, Node: "A"}}})[0]
	frame = append(frame, 4, 200, 7, 'x', 'y') // length, kind, partition, fields
	frame = append(frame, wire.Encode([]wire.Message{&wire.Bye{}})[0][1:]...)
	got, err := wire.Decode(frame)
	require.NoError(t, err)
	require.Len(t, got, 2)
	require.IsType(t, &wire.Bye{}, got[1])
}

func TestLargeBatchesAreSplit(t *testing.T) {
	var ms []wire.Message
	for i := range 40 {
		ms = append(ms, &wire.Pub{P: wire.P{Part: i}, Topic: "t", ID: fmt.Sprint(i), Data: make([]byte, 100_000)})
	}
	frames := wire.Encode(ms)
	require.Greater(t, len(frames), 3)
	var got []wire.Message
	for _, f := range frames {
		require.Less(t, len(f), wire.FrameSize+200_000)
		part, err := wire.Decode(f)
		require.NoError(t, err)
		got = append(got, part...)
	}
	require.Equal(t, ms, got)
}

func FuzzDecode(f *testing.F) {
	for _, m := range samples() {
		f.Add(wire.Encode([]wire.Message{m})[0])
	}
	f.Add(wire.Encode(samples())[0])
	f.Fuzz(func(t *testing.T, frame []byte) {
		ms, err := wire.Decode(frame)
		if err != nil {
			return
		}
		// What was read can be written, and reads the same.
		var got []wire.Message
		for _, again := range wire.Encode(ms) {
			part, err := wire.Decode(again)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, part...)
		}
		require.Equal(t, ms, got)
	})
}

func BenchmarkEncodeLive(b *testing.B) {
	m := &wire.Live{
		P: wire.P{Part: 3}, G: wire.Term{N: 2, Node: "0190c1d2-0000-7000-8000-000000000001"}, Topic: "room/1",
		Record: &wire.Record{Position: wire.Position{Epoch: wire.Term{N: 2, Node: "0190c1d2-0000-7000-8000-000000000001"}, Offset: 9}, ID: "m", Data: make([]byte, 200)},
	}
	batch := make([]wire.Message, 32)
	for i := range batch {
		batch[i] = m
	}
	b.ReportAllocs()
	for b.Loop() {
		wire.Encode(batch)
	}
}
