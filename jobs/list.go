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
	// IDs are the jobs themselves; empty but not nil selects none.
	IDs []int64
	// Kind, Queue, Schedule and Node are as in Info.
	Kind, Queue, Schedule, Node string
	// UniqueKey and LimitKey are as in EnqueueOptions.
	UniqueKey, LimitKey string
	// States are words of Info.State.
	States []string
	// Before ends the list above a job: with the last ID of a page it is the next page. 0 is none.
	Before int64
	// Limit ends the list; 0 is none.
	Limit int
}

// Info is what is known of a job.
type Info struct {
	// ID is the job's for its whole life; a later job has a larger one.
	ID int64
	// Kind is Args.Kind, Queue the lane, Priority the order in it.
	Kind, Queue string
	Priority    int
	// State is pending, running, retryable, cancel requested, or how it ended: succeeded, warning, failed, skipped, cancelled, discarded.
	// A job failed when its attempts were used up, and was discarded when the worker said so.
	State string
	// Attempt is the number of attempts so far that count, MaxAttempts their limit; 0 is the worker's.
	Attempt, MaxAttempts int
	// Node is the cluster ID of the node that runs it or ran it last; "" without a cluster.
	Node string
	// Schedule is the rule that it is of and Slot the due time; a job of RunNow has no Slot.
	Schedule string
	Slot     time.Time
	// UniqueKey and LimitKey are as in EnqueueOptions.
	UniqueKey, LimitKey string
	// Args is the input, as JSON.
	Args string
	// Progress is in percent, with the worker's Note.
	Progress int
	Note     string
	// Error is of the last attempt; a panic's with its stack. Why a slot was skipped stands here too.
	Error string
	// Output is what the worker set, as JSON; "" for nothing.
	Output string
	// Position is what the worker saved last, as JSON, and Errors are those of the newest ten attempts that failed, oldest first. Get fills
	// them in, List does not.
	Position string
	Errors   []AttemptError
	// Created is when it was enqueued, RunAt when it may run at the earliest, Started when the last attempt did, Finished when it ended; zero
	// for what has not been. All are by the database's clock.
	Created, RunAt, Started, Finished time.Time
}

const listPage = 200

const infoColumns = `id, kind, queue, priority, outcome, cancel, state, attempt-uncounted, max_attempts, node, COALESCE(schedule,''), COALESCE(due_us,0), COALESCE(unique_key,''), COALESCE(limit_key,''),
	args, progress, note, error, output, created_us, run_us, started_us, done_us`

func (i *Info) scan(rows *sql.Rows, more ...any) error {
	var cancel, state int
	var due, created, run, started, done int64
	err := rows.Scan(append([]any{&i.ID, &i.Kind, &i.Queue, &i.Priority, &i.State, &cancel, &state, &i.Attempt, &i.MaxAttempts, &i.Node, &i.Schedule, &due, &i.UniqueKey, &i.LimitKey,
		&i.Args, &i.Progress, &i.Note, &i.Error, &i.Output, &created, &run, &started, &done}, more...)...)
	if state == stRunning && cancel == 1 {
		i.State = stateCancelRequested
	}
	if state != stDone {
		done = 0
	}
	i.Slot, i.Created, i.RunAt, i.Started, i.Finished = instant(due), instant(created), instant(run), instant(started), instant(done)
	return err
}

// Get returns one job, with the errors of its attempts. ErrNotFound when it is not there (any more).
func (r *Runner) Get(ctx context.Context, id int64) (Info, error) {
	if err := r.ensure(ctx); err != nil {
		return Info{}, err
	}
	var i Info
	var errs string
	err := r.each(ctx, r.cfg.DB, `SELECT `+infoColumns+`, position, errors FROM nines_jobs WHERE id=?`, []any{id}, func(rows *sql.Rows) error {
		return i.scan(rows, &i.Position, &errs)
	})
	if err == nil && i.ID == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Info{}, fmt.Errorf("jobs: get job %d: %w", id, err)
	}
	i.Errors = parseHistory(errs)
	return i, nil
}

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
		if f.Before > 0 {
			before = f.Before
		}
		for n := 0; ; {
			page := listPage
			if f.Limit > 0 {
				page = min(page, f.Limit-n)
			}
			var infos []Info // read to the end first: the caller may use the only connection in its loop
			err := r.each(ctx, r.cfg.DB, `SELECT `+infoColumns+` FROM nines_jobs WHERE id<?`+where+fmt.Sprintf(` ORDER BY id DESC LIMIT %d`, page), append([]any{before}, args...), func(rows *sql.Rows) error {
				var i Info
				err := i.scan(rows)
				infos = append(infos, i)
				return err
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
	for _, c := range []struct{ column, value string }{
		{"kind", f.Kind}, {"queue", f.Queue}, {"schedule", f.Schedule}, {"node", f.Node}, {"unique_key", f.UniqueKey}, {"limit_key", f.LimitKey},
	} {
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
