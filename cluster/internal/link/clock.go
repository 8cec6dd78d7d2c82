package link

import "time"

// clock keeps the last measurements of a peer's clock; the one with the shortest round trip is the best.
type clock struct {
	samples [8]sample
	n       int
}

type sample struct{ rtt, offset time.Duration }

func (k *clock) add(p pong, mono, wall int64) {
	rtt := max(0, mono-p.mono-(p.sent-p.received)) // below 0: the peer's clock was set between the two
	offset := ((p.received - p.wall) + (p.sent - wall)) / 2
	k.samples[k.n%len(k.samples)] = sample{time.Duration(rtt), time.Duration(offset)}
	k.n++
}

func (k *clock) best() (s sample, ok bool) {
	for i := range min(k.n, len(k.samples)) {
		if x := k.samples[i]; i == 0 || x.rtt < s.rtt {
			s = x
		}
	}
	return s, k.n > 0
}
