package jobs_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/internal/lab"
)

// TestPlansWithHistory: on PostgreSQL, whose planner takes live jobs to be none when its statistics are of a night, no statement of the hot path reads
// more than the rows that it is about: neither the finished ones nor the backlog.
func TestPlansWithHistory(t *testing.T) {
	driver, dsn := lab.Database(t)
	b := &bench{t: t, driver: driver, dsn: dsn}
	r := b.runner(nil)
	fill := func(state, n int) {
		b.exec(fmt.Sprintf(`INSERT INTO nines_jobs (kind, queue, state, outcome, priority, run_us, deadline_us, attempt, uncounted, max_attempts, owner, node, held, cancel, args, progress, note, error, created_us, started_us, done_us)
			SELECT 'note','default',%d,'x',0,i,0,1,0,0,'me','',0,0,'{}',0,'','',i,i,i FROM generate_series(1,%d) i`, state, n))
	}
	fill(3, 30_000)
	b.exec(`VACUUM ANALYZE nines_jobs`)
	fill(1, 5_000)
	fill(2, 100)
	b.exec(`INSERT INTO nines_job_nodes (id, node, host, beat, seen_us, scheduling, working) VALUES ('me','','',1,0,0,1)`)
	for name, q := range map[string]struct {
		sql  string
		args []any
	}{
		"claim":    {r.ClaimSQL(), []any{"default", "note", 100, "me", "", "me"}},
		"complete": {r.Q(r.CompleteSQL()), []any{"{35001,35002}", "{1,1}", "me"}},
		"record":   {r.Q(`UPDATE nines_jobs SET state=3 WHERE id=? AND attempt=? AND owner=? AND state+0=2`), []any{35003, 1, "me"}},
		"cancels":  {r.Q(`SELECT id FROM nines_jobs WHERE {owner}=? AND cancel=1`), []any{"me"}},
		"promote":  {r.Q(`SELECT COALESCE(min({waits_us}),0) FROM nines_jobs WHERE {waits}`), nil},
	} {
		plan, err := b.db().Query("EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) "+q.sql, q.args...)
		require.NoError(t, err)
		var text strings.Builder
		for plan.Next() {
			var line string
			require.NoError(t, plan.Scan(&line))
			fmt.Fprintln(&text, line)
		}
		require.NoError(t, plan.Err())
		require.NotContains(t, text.String(), "Seq Scan on nines_jobs", "%s", name)
		for line := range strings.Lines(text.String()) {
			if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "Rows Removed by Filter: "); ok {
				require.LessOrEqual(t, len(strings.TrimSpace(rest)), 3, "%s reads what it is not about:\n%s", name, text.String())
			}
		}
	}
}
