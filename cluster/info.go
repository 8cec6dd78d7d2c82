package cluster

import (
	"encoding/json"
	"fmt"
	"maps"
	"time"
)

const (
	maxTags     = 16
	maxTagBytes = 256
)

// TagPaused is the tag that a Node sets on itself while it was paused for longer than it takes to be suspected, until a peer has acknowledged
// it again. It is no candidate and serves nothing then.
const TagPaused = "nines.paused"

// info is what a process tells about itself: to every peer when the link comes up, and at each change.
type info struct {
	ID, Name, Version string
	Cluster           string `json:",omitempty"`
	Schema            int
	Revision          uint64            // grows with each change
	Started           int64             // ms since 1970, its own clock
	ServicePort       int               `json:",omitempty"`
	Addr              string            // where peers reach it
	Draining, Left    bool              `json:",omitempty"`
	Keyless           bool              `json:",omitempty"`
	Tags              map[string]string `json:",omitempty"`
	Dead              []string          `json:",omitempty"` // processes that the sender knows to be dead
	Gone              map[string]int64  `json:",omitempty"` // processes that the sender knows to have said goodbye, and how many seconds ago
	Lost              []string          `json:",omitempty"` // members that the sender cannot reach now
	Flags             []toldFlag        `json:",omitempty"`
}

func (in *info) clone() *info {
	c := *in
	c.Tags = maps.Clone(in.Tags)
	return &c
}

func (in *info) encode() []byte {
	b, err := json.Marshal(in)
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	return b
}

func decodeInfo(from string, b []byte) (*info, error) {
	in := &info{}
	if err := json.Unmarshal(b, in); err != nil {
		return nil, err
	}
	if in.ID != from {
		return nil, fmt.Errorf("info of %q came from %q", in.ID, from)
	}
	if len(in.Tags) > maxTags+1 {
		return nil, fmt.Errorf("%d tags, want at most %d", len(in.Tags), maxTags)
	}
	return in, nil
}

func checkTag(key, value string) error {
	switch {
	case key == "" || len(key) > maxTagBytes:
		return fmt.Errorf("cluster: tag key %q has %d bytes; use 1 to %d", key, len(key), maxTagBytes)
	case len(value) > maxTagBytes:
		return fmt.Errorf("cluster: value of tag %q has %d bytes; use at most %d", key, len(value), maxTagBytes)
	case key == TagPaused:
		return fmt.Errorf("cluster: tag %q is set by the Node alone", key)
	}
	return nil
}

func (in *info) started() time.Time { return time.UnixMilli(in.Started) }
