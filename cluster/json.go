package cluster

import (
	"context"
	"encoding/json"
	"fmt"
)

// HandleJSON is Handle for values: the payload is decoded into a Q, and the A is encoded. A payload that does not decode is answered with an
// error and never reaches fn.
func HandleJSON[Q, A any](n *Node, topic string, fn func(ctx context.Context, from string, q Q) (A, error)) (stop func()) {
	return n.Handle(topic, func(ctx context.Context, from string, payload []byte) ([]byte, error) {
		var q Q
		if err := json.Unmarshal(payload, &q); err != nil {
			return nil, fmt.Errorf("decode %T: %w", q, err)
		}
		a, err := fn(ctx, from, q)
		if err != nil {
			return nil, err
		}
		return json.Marshal(a)
	})
}

// RequestJSON is Request for values.
func RequestJSON[A, Q any](ctx context.Context, n *Node, to, topic string, q Q) (A, error) {
	var a A
	payload, err := json.Marshal(q)
	if err != nil {
		return a, fmt.Errorf("cluster: request %q to %s: encode %T: %w", topic, to, q, err)
	}
	b, err := n.Request(ctx, to, topic, payload)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return a, fmt.Errorf("cluster: request %q to %s: decode %T: %w", topic, to, a, err)
	}
	return a, nil
}
