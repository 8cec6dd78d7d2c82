package home

import (
	"errors"
	"fmt"
	"time"

	"github.com/nines-go/nines/wsfanout/internal/wire"
)

func (c Config) withDefaults() (Config, error) {
	var errs []error
	if c.ID == "" {
		errs = append(errs, errors.New("home: Config.ID is empty: give the ID of this process"))
	}
	ints := []struct {
		name string
		v    *int
		def  int
	}{
		{"Partitions", &c.Partitions, wire.Partitions},
		{"MinCopies", &c.MinCopies, 1},
		{"MinMembers", &c.MinMembers, 1},
		{"RingBytes", &c.RingBytes, 1 << 20},
		{"NodeBytes", &c.NodeBytes, 256 << 20},
		{"WindowIDs", &c.WindowIDs, 65536},
		{"HotBytes", &c.HotBytes, 256 << 10},
		{"Moves", &c.Moves, 8},
	}
	for _, f := range ints {
		if *f.v < 0 {
			errs = append(errs, fmt.Errorf("home: Config.%s is %d: it must not be negative", f.name, *f.v))
		}
		if *f.v == 0 {
			*f.v = f.def
		}
	}
	durations := []struct {
		name string
		v    *time.Duration
		def  time.Duration
	}{
		{"RingAge", &c.RingAge, 5 * time.Minute},
		{"WindowAge", &c.WindowAge, 5 * time.Minute},
		{"IdleAge", &c.IdleAge, 24 * time.Hour},
		{"SoloDelay", &c.SoloDelay, 2 * time.Second},
		{"Retry", &c.Retry, time.Second},
		{"Announce", &c.Announce, 5 * time.Second},
		{"Linger", &c.Linger, 10 * time.Second},
		{"Uncertain", &c.Uncertain, 30 * time.Second},
		{"Hold", &c.Hold, 2 * time.Second},
	}
	for _, f := range durations {
		if *f.v == 0 {
			*f.v = f.def
		}
	}
	if c.MinCopies > 2 {
		errs = append(errs, fmt.Errorf("home: Config.MinCopies is %d: a message is on two nodes at most", c.MinCopies))
	}
	if c.Uncertain >= c.WindowAge {
		errs = append(errs, fmt.Errorf("home: Config.Uncertain is %v: it must be shorter than WindowAge, %v, or a retry may appear twice",
			c.Uncertain, c.WindowAge))
	}
	return c, errors.Join(errs...)
}
