package jobs

import "time"

const (
	planWalk    = 20_000      // slots looked at in one tick of one schedule; a longer absence takes several ticks
	planSkipped = 100         // the newest missed slots get rows that say so; older ones are only counted
	skipGrace   = time.Minute // how late a slot of CatchUp Skip still runs: schedulers change in seconds
)

// plan is what one tick does about a due schedule.
type plan struct {
	run     []time.Time // slots to run, oldest first
	skipped []time.Time // slots that are not run, to be recorded
	passed  int         // older slots that are neither
	next    time.Time   // the new next due time; zero: never again
	more    bool        // next is due too
}

// planSlots goes from slot to slot, never from now: what is due depends on nothing but the last slot and the database's clock. It is
// pure, so that any two schedulers that look at the same row mean the same slots.
func planSlots(spec Spec, loc *time.Location, catchUp CatchUp, startDeadline time.Duration, next, now time.Time) plan {
	keep := max(catchUp.n, 1)
	var p plan
	due := make([]time.Time, 0, 8)
	for p.next = next; !p.next.IsZero() && !p.next.After(now) && len(due) <= planWalk; p.next = spec.next(p.next, loc) {
		due = append(due, p.next)
	}
	if len(due) > planWalk && !p.next.IsZero() && !p.next.After(now) {
		// Which of these are the newest is not known yet: leave as many as may have to run to the next tick.
		cut := len(due) - keep
		p.next, p.more = due[cut], true
		p.miss(due[:cut])
		return p
	}
	cut := max(len(due)-keep, 0)
	p.miss(due[:cut])
	for _, at := range due[cut:] {
		late := now.Sub(at)
		switch {
		case startDeadline > 0 && late > startDeadline,
			catchUp.skip && startDeadline == 0 && late > skipGrace:
			p.skipped = append(p.skipped, at)
		default:
			p.run = append(p.run, at)
		}
	}
	return p
}

func (p *plan) miss(slots []time.Time) {
	p.passed = max(len(slots)-planSkipped, 0)
	p.skipped = append(p.skipped, slots[p.passed:]...)
}
