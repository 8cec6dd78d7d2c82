package jobs

import (
	"context"
	"fmt"
	"time"

	"github.com/nines-go/nines/internal/dialect"
)

// Next is the slot after t.
func (s Spec) Next(t time.Time, loc *time.Location) time.Time { return s.next(t, loc) }

// Hasten shortens the intervals between nodes: lease is how long a silent node keeps its jobs.
func (r *Runner) Hasten(lease time.Duration) {
	r.times.lease, r.times.margin, r.times.beat, r.times.watch = lease, lease/8, lease/10, lease/20
}

// ID is the owner of what r claims.
func (r *Runner) ID() string { return r.id }

// Q finishes a statement for r's database.
func (r *Runner) Q(query string) string { return r.q(query) }

// ClaimSQL is the claim's statement for one kind, for EXPLAIN; on MySQL its first one.
func (r *Runner) ClaimSQL() string {
	if r.d == dialect.MySQL {
		return r.q(`SELECT ` + claimedColumns("", "0") + fmt.Sprintf(pickColumns, marks(1)))
	}
	return r.q(r.claimSQL(1))
}

// CompleteSQL is the statement that records successes on PostgreSQL.
func (r *Runner) CompleteSQL() string { return r.completeSQL() }

// Tick inserts what is due.
func (r *Runner) Tick(ctx context.Context) (time.Duration, error) { return r.tick(ctx) }

// Register writes the schedules.
func (r *Runner) Register(ctx context.Context) error { _, err := r.register(ctx); return err }

// Prune deletes what is older than Keep.
func (r *Runner) Prune(ctx context.Context) error { _, err := r.pruneOnce(ctx); return err }

// Plan is what one tick does about a schedule.
func Plan(spec Spec, loc *time.Location, c CatchUp, deadline time.Duration, next, now time.Time) (run, skipped []time.Time, passed int, newNext time.Time, more bool) {
	p := planSlots(spec, loc, c, deadline, next, now)
	return p.run, p.skipped, p.passed, p.next, p.more
}
