package main

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"sync"
)

// The limit of a link: one TCP connection, u32 length and payload, two buffers that a writer swaps. Nothing is acknowledged, kept,
// counted or bounded by the receiver.

func init() {
	linkRole("link.receiver.limit", func(job linkJob, say func(any)) error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		say(l.Addr().String())
		c, err := l.Accept()
		if err != nil {
			return err
		}
		m := newLinkMeter(job)
		r := bufio.NewReaderSize(c, 128<<10)
		for {
			head, err := r.Peek(4)
			if err != nil {
				break
			}
			n := 4 + int(binary.BigEndian.Uint32(head))
			b, err := r.Peek(n)
			if err != nil {
				break
			}
			m.take(b[4:])
			r.Discard(n)
		}
		say(m.result())
		return nil
	})
	linkRole("link.sender.limit", func(job linkJob, say func(any)) error {
		c, err := net.Dial("tcp", job.Addr)
		if err != nil {
			return err
		}
		w := newBareWriter(c)
		if err := linkSend(job, w.send); err != nil {
			return err
		}
		return w.close()
	})
}

const bareBuffer = 256 << 10 // a sender waits while so much is not written

type bareWriter struct {
	mu     sync.Mutex
	filled sync.Cond
	room   sync.Cond
	buf    []byte
	closed bool
	err    error
	done   chan struct{}
}

func newBareWriter(w io.WriteCloser) *bareWriter {
	b := &bareWriter{done: make(chan struct{})}
	b.filled.L, b.room.L = &b.mu, &b.mu
	go b.run(w)
	return b
}

func (b *bareWriter) run(w io.WriteCloser) {
	defer close(b.done)
	defer w.Close()
	var spare []byte
	for {
		b.mu.Lock()
		for len(b.buf) == 0 && !b.closed {
			b.filled.Wait()
		}
		full := b.buf
		b.buf = spare[:0]
		b.room.Signal()
		b.mu.Unlock()
		if len(full) == 0 {
			return
		}
		if _, err := w.Write(full); err != nil {
			b.mu.Lock()
			b.err, b.closed = err, true
			b.room.Broadcast()
			b.mu.Unlock()
			return
		}
		spare = full
	}
}

func (b *bareWriter) send(p []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.buf) >= bareBuffer && b.err == nil {
		b.room.Wait()
	}
	if b.err != nil {
		return b.err
	}
	wake := len(b.buf) == 0
	b.buf = binary.BigEndian.AppendUint32(b.buf, uint32(len(p)))
	b.buf = append(b.buf, p...)
	if wake {
		b.filled.Signal()
	}
	return nil
}

func (b *bareWriter) close() error {
	b.mu.Lock()
	b.closed = true
	b.filled.Signal()
	b.mu.Unlock()
	<-b.done
	return b.err
}
