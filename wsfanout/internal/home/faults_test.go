package home_test

import (
	"maps"
	"slices"
	"time"

	"github.com/nines-go/nines/wsfanout/internal/home"
)

// join starts a process that the others come to know, each on its own.
func (s *sim) join() *process {
	settle := s.between(50*time.Millisecond, 1500*time.Millisecond)
	p := s.start(settle)
	for _, o := range s.living() {
		if o == p {
			continue
		}
		s.after(s.between(0, settle), func() { s.meets(p, o) })
		s.after(s.between(0, 3*time.Second), func() { s.meets(o, p) })
	}
	return p
}

// meets lets p know that o lives, if it still does.
func (s *sim) meets(p, o *process) {
	if p.stopped || o.stopped {
		return
	}
	f := home.Alive
	if s.leaving[o.id] {
		f = home.Draining
	}
	s.sees(p, o.id, f)
}

// crash ends a process. A part of what it had sent last is lost.
func (s *sim) crash(p *process) {
	s.log("crash %s", p.id)
	p.stopped = true
	delete(s.nodes, p.id)
	s.crashed[p.id] = s.now
	for _, k := range s.linkKeys() {
		l := s.links[k]
		if k[0] != p.id {
			continue
		}
		l.held = nil
		if l.last > s.now {
			lost := s.between(0, l.last-s.now)
			gen := l.gen
			s.after(lost, func() {
				if l.gen == gen {
					l.gen++
				}
			})
		}
	}
	s.orphan(p)
	for _, o := range s.living() {
		f := home.Failed
		if s.rng.IntN(2) == 0 {
			f = home.Dead
		}
		s.after(s.between(0, 3*time.Second), func() { s.sees(o, p.id, f) })
	}
}

func (s *sim) linkKeys() [][2]string {
	return slices.SortedFunc(maps.Keys(s.links), func(a, b [2]string) int {
		if a[0] != b[0] {
			if a[0] < b[0] {
				return -1
			}
			return 1
		}
		if a[1] < b[1] {
			return -1
		}
		return 1
	})
}

// orphan lets a process's clients find another.
func (s *sim) orphan(p *process) {
	for _, c := range s.clients {
		if c.node == p.id {
			s.hop(c)
		}
	}
}

// leave drains a process and stops it when it may leave.
func (s *sim) leave(p *process) {
	if s.leaving[p.id] {
		return
	}
	s.log("leave %s", p.id)
	s.leaving[p.id] = true
	s.do(p, func() {
		s.fates[p.id][p.id] = home.Draining
		p.n.Drain(s.now)
	})
	for _, o := range s.living() {
		if o != p && slices.Contains(o.alive, p.id) {
			s.after(s.between(0, 2*time.Second), func() {
				if !p.stopped && slices.Contains(o.alive, p.id) {
					s.sees(o, p.id, home.Draining)
				}
			})
		}
	}
	s.after(s.between(0, 2*time.Second), func() { s.orphan(p) })
	var poll func()
	poll = func() {
		if p.stopped {
			return
		}
		busy := slices.ContainsFunc(s.clients, func(c *subscriber) bool { return c.node == p.id })
		if busy {
			s.orphan(p)
		}
		if p.paused || busy || !p.n.MayLeave() {
			s.after(100*time.Millisecond, poll)
			return
		}
		p.n.Leave(s.now)
		s.take(p)
		s.log("gone %s", p.id)
		p.stopped = true
		delete(s.nodes, p.id)
		for _, o := range s.living() {
			s.after(s.between(0, 3*time.Second), func() { s.sees(o, p.id, home.Left) })
		}
	}
	s.after(100*time.Millisecond, poll)
}

// falsely lets a node take another for failed for a while.
func (s *sim) falsely(o, p *process, d time.Duration) {
	s.sees(o, p.id, home.Failed)
	s.after(d, func() { s.meets(o, p) })
}

// pause stops a process for a while; the others take it for failed if that is long.
func (s *sim) pause(p *process, d time.Duration) {
	if p.paused || p.stopped {
		return
	}
	s.log("pause %s for %v", p.id, d)
	p.paused = true
	p.pauseAt = s.now
	for _, o := range s.living() {
		if o == p {
			continue
		}
		s.after(s.between(time.Second, 3*time.Second), func() {
			if p.paused {
				s.sees(o, p.id, home.Failed)
				s.after(s.between(0, time.Second), func() { s.returns(o, p) })
			}
		})
	}
	s.after(d, func() {
		if p.stopped {
			return
		}
		s.log("wake %s", p.id)
		p.paused = false
		if d > time.Second {
			p.n.Paused(s.now, d)
			s.take(p)
		}
		in := p.inbox
		p.inbox = nil
		for _, f := range in {
			s.do(p, f)
		}
	})
}

// returns lets a node see another again once that one runs.
func (s *sim) returns(o, p *process) {
	if o.stopped || p.stopped {
		return
	}
	if p.paused {
		s.after(200*time.Millisecond, func() { s.returns(o, p) })
		return
	}
	s.after(s.between(0, 2*time.Second), func() { s.meets(o, p) })
}

// split cuts the links between two groups for a while; one way only, if asked.
func (s *sim) split(in func(id string) bool, oneWay bool, d time.Duration) {
	s.log("split one way %v for %v", oneWay, d)
	var cut [][2]string
	ps := s.living()
	for _, a := range ps {
		for _, b := range ps {
			if in(a.id) != in(b.id) && (!oneWay || in(a.id)) {
				cut = append(cut, [2]string{a.id, b.id})
				s.link(a.id, b.id).cut = true
			}
			if in(a.id) != in(b.id) {
				s.after(s.between(time.Second/2, 3*time.Second), func() {
					if s.link(a.id, b.id).cut || s.link(b.id, a.id).cut {
						s.sees(a, b.id, home.Failed)
					}
				})
			}
		}
	}
	s.after(d, func() {
		s.log("heal")
		for _, k := range cut {
			l := s.link(k[0], k[1])
			l.cut = false
			held := l.held
			l.held = nil
			for _, h := range held {
				s.post(k[0], k[1], h.frame)
			}
		}
		for _, a := range ps {
			for _, b := range ps {
				if in(a.id) != in(b.id) {
					s.after(s.between(0, 3*time.Second), func() { s.meets(a, b) })
				}
			}
		}
	})
}

// calm reports whether the next failure may come (P1): all views are equal, all partitions settled and replicated, nothing of
// a dead process on its way.
func (s *sim) calm() bool {
	for _, at := range s.crashed {
		if s.now < at+4*time.Second {
			return false
		}
	}
	ps := s.living()
	for _, p := range ps {
		if !p.settled || p.paused || len(p.alive) != len(ps) || !p.n.Settled() {
			return false
		}
		for _, o := range ps {
			if !slices.Contains(p.alive, o.id) {
				return false
			}
		}
	}
	return true
}

// whenCalm runs something as soon as it is calm.
func (s *sim) whenCalm(f func()) {
	if s.calm() {
		f()
		return
	}
	s.after(100*time.Millisecond, func() { s.whenCalm(f) })
}

// heal ends all that is not a crash: every process runs, sees all others, and links are fast.
func (s *sim) heal() {
	s.quiet = true
	for _, k := range s.linkKeys() {
		l := s.links[k]
		if l.cut {
			l.cut = false
			held := l.held
			l.held = nil
			for _, h := range held {
				s.post(k[0], k[1], h.frame)
			}
		}
	}
	var again func()
	rounds := 0
	again = func() {
		for _, p := range s.living() {
			for _, o := range s.living() {
				if p == o {
					continue
				}
				f := home.Alive
				if s.leaving[o.id] {
					f = home.Draining
				}
				if s.fates[p.id][o.id] != f {
					s.sees(p, o.id, f)
				}
			}
			for _, id := range slices.Clone(p.alive) {
				if s.nodes[id] == nil {
					s.sees(p, id, home.Failed)
				}
			}
		}
		if rounds++; rounds < 20 {
			s.after(time.Second, again)
		}
	}
	s.after(4*time.Second, again)
}
