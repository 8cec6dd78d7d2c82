package wsfanout

import (
	"context"
	"time"

	"github.com/nines-go/nines/wsfanout/internal/frame"
	"github.com/nines-go/nines/wsfanout/internal/sock"
)

// fillWait is how many gaps may wait for their OnGap; above it they are told as they are.
const fillWait = 4096

const fillTimeout = 30 * time.Second

// fillLocked has the application fill a gap before it is told. It reports false when that cannot be.
func (h *Hub) fillLocked(s *sub, gap frame.Server) bool {
	if h.cfg.OnGap == nil || h.filling >= fillWait {
		return false
	}
	id, after, who, topic := s.id, s.last, s.conn.who, s.room.topic
	ok := h.spawn(func(ctx context.Context) {
		messages, err := h.fill(ctx, who, topic, after)
		if err != nil {
			h.log.Warn("gap not filled", "topic", topic, "user", who.User, "error", err)
		}
		h.do(func() {
			h.filling--
			if h.attached[id] != s {
				return
			}
			gap.Filled = err == nil
			s.fills = append(s.fills[:0], sock.Text(frame.Marshal(gap)))
			for _, m := range messages {
				s.fills = append(s.fills, sock.Text(frame.AppendMessage(nil, frame.Fill, topic, "", 0, m.ID, m.Data)))
				if m.ID != "" {
					s.skip[m.ID] = true
					s.last = m.ID
				}
			}
			h.catchUpLocked(s)
		})
	})
	if ok {
		h.filling++
		s.mode, s.skip = filling, map[string]bool{}
	}
	return ok
}

func (h *Hub) fill(ctx context.Context, who Identity, topic, after string) ([]Message, error) {
	ctx, cancel := context.WithTimeout(ctx, fillTimeout)
	defer cancel()
	select {
	case h.fills <- struct{}{}:
		defer func() { <-h.fills }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return h.cfg.OnGap(ctx, who, topic, after)
}
