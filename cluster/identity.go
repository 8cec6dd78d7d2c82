package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sync"
	"time"
)

// maxAhead is how far the cluster's newest ID may lie in this node's future before the clocks must be wrong.
const maxAhead = 24 * time.Hour

var lastID struct {
	sync.Mutex
	ticks int64
}

// newID returns a UUID of version 7: IDs sort by the time of their making, within a process too. Twelve bits below the millisecond hold the
// fraction (RFC 9562, 6.2, method 3).
func newID() string {
	const perMilli = 4096
	now := time.Now().UnixNano()
	ticks := now/1e6*perMilli + now%1e6*perMilli/1e6
	lastID.Lock()
	ticks = max(ticks, lastID.ticks+1)
	lastID.ticks = ticks
	lastID.Unlock()
	return makeID(ticks/perMilli, uint16(ticks%perMilli))
}

func makeID(ms int64, fraction uint16) string {
	var u [16]byte
	rand.Read(u[8:]) // never fails
	for i := range 6 {
		u[i] = byte(ms >> (40 - 8*i))
	}
	u[6], u[7] = 0x70|byte(fraction>>8)&0x0f, byte(fraction)
	u[8] = u[8]&0x3f | 0x80
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// idTime reads the time of an ID; ok is false when it is not one of ours.
func idTime(id string) (t time.Time, ok bool) {
	if len(id) != 36 || id[8] != '-' || id[13] != '-' || id[14] != '7' || id[18] != '-' || id[23] != '-' {
		return time.Time{}, false
	}
	for i := range len(id) {
		c := id[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c != '-' || i != 8 && i != 13 && i != 18 && i != 23) {
			return time.Time{}, false
		}
	}
	b, err := hex.DecodeString(id[:8] + id[9:13])
	if err != nil {
		return time.Time{}, false
	}
	var ms int64
	for _, x := range b {
		ms = ms<<8 | int64(x)
	}
	return time.UnixMilli(ms), true
}

// idAbove returns own when it is greater than highest, else a new ID that is, so that age decides order also when this clock is behind.
func idAbove(own, highest string, now time.Time) (string, error) {
	t, ok := idTime(highest)
	if !ok || own > highest {
		return own, nil
	}
	if at, ok := idTime(own); ok && at.After(now) {
		now = at // this process' clock has been there: it was set back, or is a test's
	}
	if ahead := t.Sub(now); ahead > maxAhead {
		return "", fmt.Errorf("cluster: the newest process of the cluster was started %v ahead of this host's clock (%s); set the clocks of all hosts, for example with NTP", ahead.Round(time.Second), now.UTC().Format(time.RFC3339))
	}
	return makeID(t.UnixMilli()+1, 0), nil
}
