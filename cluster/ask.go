package cluster

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// question is what a process asks at an address, on a stream of its own: before it has an ID in use, and to hear whether it is known there.
type question struct {
	ID string // the asker's
}

// finding is the answer.
type finding struct {
	ID      string // who answers
	Highest string // ID that it has heard of
	Fate    string // the asker's, there; empty: not known
	Now     int64  // ms since 1970, its clock
	Version string
	Flags   []toldFlag `json:",omitempty"` // that are set
}

const (
	maxAsk    = 4096
	maxAnswer = 65535
)

// inquire asks at addr. A connection has to come about within that time; for the rest there is ctx, because a busy machine may be slow with its
// handshakes. connected, which may be nil, is called when there is one.
func (w *wire) inquire(ctx context.Context, within time.Duration, addr string, q question, connected func()) (f finding, err error) {
	connecting, cancel := context.WithTimeout(ctx, within)
	raw, err := w.net.Dial(connecting, addr)
	cancel()
	if err != nil {
		return f, err
	}
	if connected != nil {
		connected()
	}
	c, err := w.guard.client(ctx, raw)
	if err != nil {
		return f, err
	}
	defer c.Close()
	if d, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(d)
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if _, err = c.Write([]byte{toAsk}); err == nil {
		err = writeJSON(c, q)
	}
	if err == nil {
		err = readJSON(c, &f, maxAnswer)
	}
	if err != nil {
		return f, fmt.Errorf("no answer: %w", err)
	}
	if _, ok := idTime(f.ID); !ok {
		return f, errors.New("what answers there has no ID")
	}
	return f, nil
}

// answer serves one question.
func answerQuestion(c net.Conn, find func(q question) finding) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(strangerTimeout))
	var q question
	if readJSON(c, &q, maxAsk) == nil {
		_ = writeJSON(c, find(q))
	}
}

func writeJSON(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > maxAnswer {
		return fmt.Errorf("%d bytes to be told, want at most %d", len(b), maxAnswer)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}

func readJSON(r io.Reader, v any, most int) error {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n > most {
		return fmt.Errorf("answer of %d bytes, want at most %d", n, most)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}
