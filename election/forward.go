package election

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/nines-go/nines/internal/backoff"
)

// An answer of a leader begins with one byte that says what the rest is.
const (
	answerOK      = 0
	answerFailed  = 1 // text of the handler's error
	answerRefused = 2 // not the leader: fn did not run
)

func (e *Elector) callTopic(topic string) string { return e.topic() + "/call/" + topic }

// maxTopic is the longest topic of a cluster.
const maxTopic = 255

// checkTopic says what is wrong with a topic of HandleLeader and Forward.
func (e *Elector) checkTopic(topic string) error {
	if most := maxTopic - len(e.callTopic("")); topic == "" || len(topic) > most {
		return fmt.Errorf("election: topic %q has %d bytes: use 1 to %d, which is what the election's name of %d bytes leaves of the cluster's %d", topic, len(topic), most, len(e.cfg.Name), maxTopic)
	}
	return nil
}

// HandleLeader answers Forward on the topic while this node leads and nobody else can still be acting. The context of fn ends with the
// leadership; term is for Fence. The payload is valid until fn returns. All nodes that may lead register the same topics.
//
// The topic may have 240 bytes less those of Config.Name; a longer or empty one panics, as does a nil fn.
func (e *Elector) HandleLeader(topic string, fn func(ctx context.Context, term uint64, payload []byte) ([]byte, error)) (stop func()) {
	if err := e.checkTopic(topic); err != nil {
		panic(err.Error())
	}
	if fn == nil {
		panic(fmt.Sprintf("election: HandleLeader(%q) of a nil function", topic))
	}
	e.mu.Lock()
	if e.handlers == nil {
		e.handlers = map[string]leaderFunc{}
	}
	e.handlers[topic] = fn
	e.mu.Unlock()
	stopHandle := e.cfg.Members.Handle(e.callTopic(topic), func(ctx context.Context, _ string, payload []byte) ([]byte, error) {
		return e.serve(ctx, topic, payload), nil
	})
	return func() {
		e.mu.Lock()
		delete(e.handlers, topic)
		e.mu.Unlock()
		stopHandle()
	}
}

type leaderFunc = func(ctx context.Context, term uint64, payload []byte) ([]byte, error)

// serve runs a handler if this node leads.
func (e *Elector) serve(ctx context.Context, topic string, payload []byte) []byte {
	if len(payload) < 8 {
		return append([]byte{answerFailed}, "the request is too short"...)
	}
	wanted := binary.BigEndian.Uint64(payload)
	e.mu.Lock()
	s, fn := e.unfenced, e.handlers[topic]
	if s != nil && fn != nil && s.term >= wanted {
		e.running++
	} else {
		s = nil
	}
	e.mu.Unlock()
	if s == nil || fn == nil {
		return []byte{answerRefused}
	}
	var out []byte
	err, _ := e.within(ctx, s, true, e.leave, func(ctx context.Context, term uint64) (err error) {
		out, err = fn(ctx, term, payload[8:])
		return err
	})
	if err != nil {
		return append([]byte{answerFailed}, err.Error()...)
	}
	return append([]byte{answerOK}, out...)
}

// LeaderError is an error that the leader's handler returned.
type LeaderError struct {
	LeaderID, Text string
}

// Error names the leader and what its handler said.
func (e *LeaderError) Error() string {
	return fmt.Sprintf("election: leader %s: %s", e.LeaderID, e.Text)
}

// Forward sends a request to the handler of the topic on the node that leads, this one included. When that node does not lead any more
// it did not run, and is sent to the next leader within ctx. When the leader is lost while it answers, the request is sent to the
// next leader too: then it may have run twice, so requests that must not should carry an ID. An error of the handler is a *LeaderError.
// With no leader until ctx ends, the error is ErrNoLeader.
func (e *Elector) Forward(ctx context.Context, topic string, payload []byte) ([]byte, error) {
	if err := e.checkTopic(topic); err != nil {
		return nil, err
	}
	var last error
	for try := 0; ; try++ {
		if e.life.Closed() {
			return nil, ErrClosed
		}
		e.mu.Lock()
		s, changed := e.state, e.changed
		e.mu.Unlock()
		wait := 200 * time.Millisecond
		if s.LeaderID != "" {
			answer, err := e.call(ctx, s, topic, payload)
			switch {
			case err != nil:
				last = fmt.Errorf("election: forward to %s: %w", s.LeaderID, err)
				if err := e.moved(ctx, s, last); err != nil {
					return nil, err
				}
				continue
			case len(answer) > 0 && answer[0] == answerOK:
				return answer[1:], nil
			case len(answer) > 0 && answer[0] == answerFailed:
				return nil, &LeaderError{LeaderID: s.LeaderID, Text: string(answer[1:])}
			}
			last = fmt.Errorf("election: %s does not answer as leader on topic %q", s.LeaderID, topic)
			wait = backoff.Delay(try, 5*time.Millisecond, 200*time.Millisecond)
		}
		timer := time.NewTimer(wait)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, e.forwardFault(ctx, last)
		}
		timer.Stop()
	}
}

// moved waits until somebody else leads than in s, after a request whose fate is not known.
func (e *Elector) moved(ctx context.Context, s State, last error) error {
	err := e.until(ctx, func() (bool, error) {
		return e.state.LeaderID != "" && (e.state.LeaderID != s.LeaderID || e.state.Term != s.Term), nil
	})
	if err == nil || errors.Is(err, ErrClosed) {
		return err
	}
	return e.forwardFault(ctx, last)
}

func (e *Elector) forwardFault(ctx context.Context, last error) error {
	if e.State().LeaderID == "" || last == nil {
		return errors.Join(ErrNoLeader, last, ctx.Err())
	}
	return errors.Join(last, ctx.Err())
}

func (e *Elector) call(ctx context.Context, s State, topic string, payload []byte) ([]byte, error) {
	req := make([]byte, 8+len(payload))
	binary.BigEndian.PutUint64(req, s.Term)
	copy(req[8:], payload)
	if s.LeaderID == e.cfg.Members.ID() {
		return e.serve(ctx, topic, req), nil
	}
	return e.cfg.Members.Request(ctx, s.LeaderID, e.callTopic(topic), req)
}
