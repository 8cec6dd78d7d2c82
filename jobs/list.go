package jobs

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"strings"
	"time"
)

// Filter selects jobs; zero fields select all.
type Filter struct {
	IDs      []int64
	Kind     string
	Queue    string
	Schedule string
	// States are words of Info.State.
	States []string
	// Limit ends the list; 0 is none.
	Limit int
}

// Info is what is known of a job.
type Info struct {
	ID       int64
	Kind     string
	Queue    string
	Priority int
	// State is pending, running, retryable, cancel requested, or how it ended: succeeded, warning, failed, skipped, cancelled, discarded.
	// A job failed when its attempts were used up, and was discarded when the worker said so.
	State    string
	Attempt  int    // attempts so far that count
	Node     string // cluster ID of the node that runs it or ran it last
	Schedule string
	Slot     time.Time // zero without one
	Args     string    // JSON
	Progress int       // percent
	Note     string
	Error    string // of the last attempt; a panic's with its stack
	Created  time.Time
	RunAt    time.Time
	Started  time.Time // of the last attempt
	Finished time.Time
}

const listPage = 200

// List returns jobs, newest first. It reads page by page, each as it is at that moment. The loop ends after an error.
func (r *Runner) List(ctx context.Context, f Filter) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if err := r.ensure(ctx); err != nil {
			yield(Info{}, err)
			return
		}
		where, args, err := f.where()
		if err != nil {
			yield(Info{}, err)
			return
		}
		before := int64(never)
		for n := 0; ; {
			page := listPage
			if f.Limit > 0 {
				page = min(page, f.Limit-n)
			}
			var infos []Info // read to the end first: the caller may use the only connection in its loop
			err := r.each(ctx, r.cfg.DB, `SELECT id, kind, queue, priority, outcome, cancel, state, attempt-uncounted, node, COALESCE(schedule,''), COALESCE(due_us,0), args, progress, note, error, created_us, run_us, started_us, done_us FROM nines_jobs WHERE id<?`+where+
				fmt.Sprintf(` ORDER BY id DESC LIMIT %d`, page), append([]any{before}, args...), func(rows *sql.Rows) error {
				var i Info
				var cancel, state int
				var due, created, run, started, done int64
				if err := rows.Scan(&i.ID, &i.Kind, &i.Queue, &i.Priority, &i.State, &cancel, &state, &i.Attempt, &i.Node, &i.Schedule, &due, &i.Args, &i.Progress, &i.Note, &i.Error, &created, &run, &started, &done); err != nil {
					return err
				}
				if state == stRunning && cancel == 1 {
					i.State = stateCancelRequested
				}
				if state != stDone {
					done = 0
				}
				i.Slot, i.Created, i.RunAt, i.Started, i.Finished = instant(due), instant(created), instant(run), instant(started), instant(done)
				infos = append(infos, i)
				return nil
			})
			if err != nil {
				yield(Info{}, fmt.Errorf("jobs: list: %w", err))
				return
			}
			for _, i := range infos {
				if !yield(i, nil) {
					return
				}
				before = i.ID
				n++
			}
			if len(infos) < page || f.Limit > 0 && n >= f.Limit {
				return
			}
		}
	}
}

const stateCancelRequested = "cancel requested"

func instant(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

func (f Filter) where() (string, []any, error) {
	var b strings.Builder
	var args []any
	for _, c := range []struct{ column, value string }{{"kind", f.Kind}, {"queue", f.Queue}, {"schedule", f.Schedule}} {
		if c.value != "" {
			b.WriteString(` AND ` + c.column + `=?`)
			args = append(args, c.value)
		}
	}
	if f.IDs != nil {
		if len(f.IDs) == 0 {
			b.WriteString(` AND 1=0`)
		} else {
			b.WriteString(` AND id IN (` + numbers(f.IDs) + `)`)
		}
	}
	if len(f.States) > 0 {
		var any []string
		for _, s := range f.States {
			switch s {
			case stateCancelRequested:
				any = append(any, `(state=2 AND cancel=1)`)
			case outRunning:
				any = append(any, `(state=2 AND cancel=0)`)
			case outPending, outRetryable, outSucceeded, outWarning, outFailed, outSkipped, outCancelled, outDiscarded:
				any = append(any, `outcome='`+s+`'`)
			default:
				return "", nil, fmt.Errorf("jobs: Filter.States has %q: use the words of Info.State", s)
			}
		}
		b.WriteString(` AND (` + strings.Join(any, ` OR `) + `)`)
	}
	return b.String(), args, nil
}
