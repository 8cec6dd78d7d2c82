package cluster

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// Bounds of flags.
const (
	maxFlags    = 64
	maxFlagTTL  = 7 * 24 * time.Hour
	keepFlag    = 24 * time.Hour // after its end, so that who was away does not bring it back
	keptFlags   = 4 * maxFlags
	maxFlagName = 64
)

// Flag is a word that the whole cluster knows for a while: "busy", "maintenance".
type Flag struct {
	Name, Value string
	By          string        // ID of the node that set it
	Remaining   time.Duration // until it ends by itself
}

// flag is the latest that is known under a name. One with a higher version wins; of two with the same, that of the higher ID.
type flag struct {
	value   string
	by      string
	version uint64
	until   time.Duration // on the clock that counts pauses too
}

// toldFlag is a flag on its way. Its time is what remains of it, so no two clocks are compared.
type toldFlag struct {
	Name, Value, By string
	Version         uint64
	Remaining       int64 // ms; 0: it has ended, or was taken back
}

// SetFlag tells all members that a flag is set, for ttl (up to 7 days) from now on unless it is set again or cleared before: load is to be shed, there is
// maintenance. Who joins later learns it, with what remains of its time, before it is ready. Of two that are set under one name at the same
// time one wins on all nodes. It returns nil when all members that can be reached know; else *PeersError, and they will learn it. Names have 1
// to 64 bytes, values up to 256; 64 flags at a time.
func (n *Node) SetFlag(ctx context.Context, name, value string, ttl time.Duration) error {
	switch {
	case name == "" || len(name) > maxFlagName:
		return fmt.Errorf("cluster: flag %q has a name of %d bytes; use 1 to %d", name, len(name), maxFlagName)
	case len(value) > maxTagBytes:
		return fmt.Errorf("cluster: value of flag %q has %d bytes; use at most %d", name, len(value), maxTagBytes)
	case ttl <= 0 || ttl > maxFlagTTL:
		return fmt.Errorf("cluster: flag %q has a TTL of %v; use one above 0 and up to %v, or ClearFlag", name, ttl, maxFlagTTL)
	}
	return n.putFlag(ctx, name, value, ttl)
}

// ClearFlag ends a flag on all members before its time. It returns like SetFlag.
func (n *Node) ClearFlag(ctx context.Context, name string) error {
	n.mu.Lock()
	_, ok := n.flags[name]
	n.mu.Unlock()
	if !ok {
		return nil
	}
	return n.putFlag(ctx, name, "", 0)
}

func (n *Node) putFlag(ctx context.Context, name, value string, ttl time.Duration) error {
	select {
	case <-n.ended:
		return ErrClosed
	case <-n.life.Done():
		return ErrClosed
	default:
	}
	n.mu.Lock()
	now := n.pause.clock()
	old := n.flags[name]
	if live := n.liveFlagsLocked(); ttl > 0 && live >= maxFlags && old.until <= now {
		n.mu.Unlock()
		return fmt.Errorf("cluster: flag %q would be the %dth; clear one", name, maxFlags+1)
	}
	n.flags[name] = flag{value: value, by: n.id, version: old.version + 1, until: now + ttl}
	n.mu.Unlock()
	n.notify()
	if n.cfg.Single || !n.isRunning() {
		return nil
	}
	return n.tellAll(ctx)
}

// Flag returns the value of a flag and how long it will be set; ok is false when it is not.
func (n *Node) Flag(name string) (value string, remaining time.Duration, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := n.flags[name]
	if remaining = f.until - n.pause.clock(); f.version == 0 || remaining <= 0 {
		return "", 0, false
	}
	return f.value, remaining, true
}

// Flags returns the flags that are set, by name.
func (n *Node) Flags() []Flag {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.flagsLocked()
}

func (n *Node) flagsLocked() (flags []Flag) {
	now := n.pause.clock()
	for name, f := range n.flags {
		if f.until > now {
			flags = append(flags, Flag{Name: name, Value: f.value, By: f.by, Remaining: f.until - now})
		}
	}
	slices.SortFunc(flags, func(a, b Flag) int { return cmp.Compare(a.Name, b.Name) })
	return flags
}

func (n *Node) liveFlagsLocked() (live int) {
	now := n.pause.clock()
	for _, f := range n.flags {
		if f.until > now {
			live++
		}
	}
	return live
}

// flagsToTellLocked holds the ended ones too.
func (n *Node) flagsToTellLocked() (told []toldFlag) {
	now := n.pause.clock()
	for name, f := range n.flags {
		told = append(told, toldFlag{name, f.value, f.by, f.version, max(0, (f.until - now).Milliseconds())})
	}
	return told
}

// learnFlags takes what a peer knows of flags.
func (n *Node) learnFlags(told []toldFlag) {
	n.mu.Lock()
	now := n.pause.clock()
	for _, t := range told {
		if len(t.Name) == 0 || len(t.Name) > maxFlagName || len(t.Value) > maxTagBytes {
			continue
		}
		f := flag{t.Value, t.By, t.Version, now + min(time.Duration(max(t.Remaining, 0))*time.Millisecond, maxFlagTTL)}
		switch old, ok := n.flags[t.Name]; {
		case ok && old.version == f.version && old.by == f.by:
			f.until = min(f.until, old.until) // one of the two was told long ago
		case ok && cmp.Or(cmp.Compare(old.version, f.version), cmp.Compare(old.by, f.by)) > 0:
			continue
		case !ok && len(n.flags) >= keptFlags:
			continue
		}
		n.flags[t.Name] = f
	}
	n.mu.Unlock()
}

// sweepFlags tells that flags have ended, and forgets those that ended long ago. last is the clock at the last call.
func (n *Node) sweepFlags(last time.Duration) (now time.Duration) {
	n.mu.Lock()
	now = n.pause.clock()
	ended := false
	for name, f := range n.flags {
		ended = ended || f.until > last && f.until <= now
		if now-f.until > keepFlag {
			delete(n.flags, name)
		}
	}
	n.mu.Unlock()
	if ended {
		n.notify()
	}
	return now
}
