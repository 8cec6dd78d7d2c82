package jobs

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nines-go/nines/internal/dialect"
)

// EnqueueOptions say where and when a job runs. The zero value is a job of queue "default" that runs as soon as it can.
type EnqueueOptions struct {
	// Queue is the lane; "" is "default".
	Queue string
	// Priority orders the jobs of a queue: lower ones first, 0 in the middle; -1,000,000 to 1,000,000.
	Priority int
	// RunAt is when it may run at the earliest, by the database's clock; zero is now.
	RunAt time.Time
	// UniqueKey makes a second job of the same kind and key ErrDuplicate while the first has not finished; at most 128 bytes.
	UniqueKey string
	// MaxAttempts comes before the worker's; 0 leaves it to the worker.
	MaxAttempts int
	// LimitKey: of the jobs of one kind with the same LimitKey, in whatever queue, at most LimitMax run at once on all nodes together; at most
	// 128 bytes. One that has been let through and waits for a free worker counts as running.
	LimitKey string
	// LimitMax is the limit of LimitKey, 1 to 1,000,000; 0 is 1. Jobs of one key with different limits each heed their own.
	LimitMax int
}

// insertion is a job to be inserted.
type insertion struct {
	kind, args string
	opts       EnqueueOptions
}

func prepare(args Args, opts *EnqueueOptions) (insertion, error) {
	in := insertion{}
	if opts != nil {
		in.opts = *opts
	}
	if isNil(args) {
		return in, errors.New("jobs: args are nil: give a value that has a Kind")
	}
	in.kind = args.Kind()
	var faults []error
	bad := func(format string, a ...any) { faults = append(faults, fmt.Errorf("jobs: "+format, a...)) }
	if err := validName(in.kind); err != nil {
		bad("kind %q of %T: %w", in.kind, args, err)
	}
	text, err := json.Marshal(args)
	if err != nil {
		bad("args of kind %q: %w", in.kind, err)
	}
	if len(text) > maxArgs {
		bad("args of kind %q have %d bytes: use at most %d, and keep large data elsewhere", in.kind, len(text), maxArgs)
	}
	in.args = string(text)
	if in.opts.Queue == "" {
		in.opts.Queue = defaultQueue
	} else if err := validName(in.opts.Queue); err != nil {
		bad("EnqueueOptions.Queue %q: %w", in.opts.Queue, err)
	}
	if p := in.opts.Priority; p < -1_000_000 || p > 1_000_000 {
		bad("EnqueueOptions.Priority is %d: use -1,000,000 to 1,000,000", p)
	}
	for _, k := range []struct{ field, key string }{{"UniqueKey", in.opts.UniqueKey}, {"LimitKey", in.opts.LimitKey}} {
		if len(k.key) > maxName || cutText(k.key, maxName) != k.key {
			bad("EnqueueOptions.%s %q: use at most %d bytes of text, or its hash", k.field, k.key, maxName)
		}
	}
	if n := in.opts.MaxAttempts; n < 0 || n > maxCount {
		bad("EnqueueOptions.MaxAttempts is %d: use 1 to 1,000,000, or 0 for the worker's", n)
	}
	switch n := in.opts.LimitMax; {
	case n < 0 || n > maxCount:
		bad("EnqueueOptions.LimitMax is %d: use 1 to 1,000,000, or 0 for 1", n)
	case n > 0 && in.opts.LimitKey == "":
		bad("EnqueueOptions.LimitMax is %d without LimitKey: name what it limits", n)
	case in.opts.LimitKey != "":
		in.opts.LimitMax = max(n, 1)
	}
	return in, errors.Join(faults...)
}

const insertColumns = `INSERT INTO nines_jobs (kind, queue, state, outcome, priority, run_us, deadline_us, attempt, uncounted, max_attempts, node, held, cancel, unique_key, limit_key, limit_max, args, progress, note, error, created_us, started_us, done_us) VALUES `

// insertRow appends the values of one row. state is decided by the database's clock.
func (r *Runner) insertRow(b *strings.Builder, args []any, in insertion) []any {
	state, run, held := `1`, `{now}`, 0
	if in.opts.LimitKey != "" {
		state, held = `0`, heldByLimit
	}
	args = append(args, in.kind, in.opts.Queue)
	if at := in.opts.RunAt; !at.IsZero() {
		run, held = `?`, heldNot
		if in.opts.LimitKey == "" {
			state = `CASE WHEN ?<={now} THEN 1 ELSE 0 END`
			args = append(args, at.UnixMicro())
		}
		args = append(args, in.opts.Priority, at.UnixMicro())
	} else {
		args = append(args, in.opts.Priority)
	}
	b.WriteString(`(?,?,` + state + `,'pending',?,` + run + `,0,0,0,?,'',?,0,?,?,?,?,0,'','',{now},0,0)`)
	return append(args, in.opts.MaxAttempts, held, orNull(in.opts.UniqueKey), orNull(in.opts.LimitKey), in.opts.LimitMax, in.args)
}

func orNull(text string) any {
	if text == "" {
		return nil
	}
	return text
}

// txExecer runs the Runner's statements in a caller's transaction.
type txExecer struct{ Tx }

func (t txExecer) QueryContext(context.Context, string, ...any) (*sql.Rows, error) {
	return nil, errors.New("jobs: not in a caller's transaction")
}

// Enqueue inserts a job and returns its id. ErrDuplicate comes with the id of the live one. It may be called before Run.
func (r *Runner) Enqueue(ctx context.Context, args Args, opts *EnqueueOptions) (id int64, err error) {
	if err := r.ensure(ctx); err != nil {
		return 0, err
	}
	in, err := prepare(args, opts)
	if err != nil {
		return 0, err
	}
	id, err = r.insert(ctx, in, r.cfg.DB.ExecContext, func(ctx context.Context, query string, args []any, dest ...any) error {
		return r.one(ctx, r.cfg.DB, query, args, dest...)
	})
	if err == nil {
		r.enqueued(ctx, in)
	}
	return id, err
}

// enqueued tells those who may run a job that it is there.
func (r *Runner) enqueued(ctx context.Context, in insertion) {
	if in.opts.LimitKey != "" && in.opts.RunAt.IsZero() {
		if _, err := r.letThrough(ctx, []limitKey{{in.kind, in.opts.LimitKey}}); err == nil {
			return // others need not look for what is free
		}
	}
	r.wake(wakeFor(in.opts))
}

// EnqueueTx inserts a job in the caller's transaction: it exists if that commits. A database or connection is refused without a query.
// The tables must be there: Run has been at work, or any other method.
func (r *Runner) EnqueueTx(ctx context.Context, tx Tx, args Args, opts *EnqueueOptions) (id int64, err error) {
	if r.life.Closed() {
		return 0, ErrClosed
	}
	if err := checkTx(tx); err != nil {
		return 0, err
	}
	in, err := prepare(args, opts)
	if err != nil {
		return 0, err
	}
	id, err = r.insert(ctx, in, tx.ExecContext, func(ctx context.Context, query string, args []any, dest ...any) error {
		return tx.QueryRowContext(ctx, r.q(query), args...).Scan(dest...)
	})
	if err == nil {
		r.wakeLater()
	}
	return id, err
}

func wakeFor(o EnqueueOptions) string {
	if o.RunAt.IsZero() && o.LimitKey == "" {
		return topicWake
	}
	return topicDue
}

func (r *Runner) insert(ctx context.Context, in insertion, exec func(context.Context, string, ...any) (sql.Result, error),
	query func(ctx context.Context, query string, args []any, dest ...any) error) (int64, error) {
	var b strings.Builder
	b.WriteString(insertColumns)
	args := r.insertRow(&b, nil, in)
	const live = `SELECT COALESCE(max(id),0) FROM nines_jobs WHERE kind=? AND unique_key=? AND state<3`
	fail := func(err error) (int64, error) { return 0, fmt.Errorf("jobs: enqueue %q: %w", in.kind, err) }
	for range 3 {
		var id int64
		var err error
		if r.d == dialect.MySQL {
			var res sql.Result
			if res, err = exec(ctx, r.q(b.String()), args...); err == nil {
				id, err = res.LastInsertId()
			} else if in.opts.UniqueKey != "" && strings.Contains(err.Error(), "1062") {
				err = sql.ErrNoRows
			}
		} else {
			// Not by the error of the index: on PostgreSQL that would end the caller's transaction.
			err = query(ctx, b.String()+` ON CONFLICT DO NOTHING RETURNING id`, args, &id)
		}
		if err == nil {
			return id, nil
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return fail(err)
		}
		if err := query(ctx, live, []any{in.kind, in.opts.UniqueKey}, &id); err != nil {
			return fail(err)
		}
		if id != 0 {
			return id, ErrDuplicate
		}
		// It finished in between.
	}
	return 0, ErrDuplicate
}

// insertArrays inserts jobs that differ in nothing but kind and args: two arrays cost the server far less than rows of arguments.
func (r *Runner) insertArrays(ctx context.Context, tx *sql.Tx, ins []insertion) error {
	const chunk = 5000
	o := ins[0].opts
	state, run, held := `1`, `{now}`, heldNot
	var at []any
	switch {
	case !o.RunAt.IsZero() && o.LimitKey == "":
		state, run, at = `CASE WHEN CAST(? AS bigint)<={now} THEN 1 ELSE 0 END`, `CAST(? AS bigint)`, []any{o.RunAt.UnixMicro()}
	case !o.RunAt.IsZero():
		state, run, at = `0`, `CAST(? AS bigint)`, []any{o.RunAt.UnixMicro()}
	case o.LimitKey != "":
		state, held = `0`, heldByLimit
	}
	query := strings.TrimSuffix(insertColumns, ` VALUES `) + ` SELECT v.kind, CAST(? AS text), ` + state + `, 'pending', CAST(? AS int), ` + run +
		`, 0, 0, 0, CAST(? AS int), '', CAST(? AS int), 0, NULL, CAST(? AS text), CAST(? AS int), v.args, 0, '', '', {now}, 0, 0 FROM unnest(CAST(? AS text[]), CAST(? AS text[])) AS v(kind, args)`
	for from := 0; from < len(ins); from += chunk {
		var kinds, texts textArray
		for _, in := range ins[from:min(from+chunk, len(ins))] {
			kinds.add(in.kind)
			texts.add(in.args)
		}
		args := []any{o.Queue}
		if state != `0` {
			args = append(args, at...)
		}
		args = append(append(args, o.Priority), at...)
		args = append(args, o.MaxAttempts, held, orNull(o.LimitKey), o.LimitMax, kinds.end(), texts.end())
		if _, err := r.exec(ctx, tx, query, args...); err != nil {
			return err
		}
	}
	return nil
}

// textArray is an array of PostgreSQL as text, which every driver passes on.
type textArray struct{ b strings.Builder }

func (a *textArray) add(text string) {
	if a.b.Len() == 0 {
		a.b.WriteByte('{')
	} else {
		a.b.WriteByte(',')
	}
	a.b.WriteByte('"')
	_, _ = arrayEscapes.WriteString(&a.b, text)
	a.b.WriteByte('"')
}

func (a *textArray) end() string { return a.b.String() + "}" }

var arrayEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// EnqueueMany inserts jobs in one transaction, all or none, and returns how many. A unique key can name one job only: it is refused with
// more.
func (r *Runner) EnqueueMany(ctx context.Context, args []Args, opts *EnqueueOptions) (n int, err error) {
	if err := r.ensure(ctx); err != nil {
		return 0, err
	}
	if len(args) == 0 {
		return 0, nil
	}
	if opts != nil && opts.UniqueKey != "" {
		return 0, fmt.Errorf("jobs: EnqueueOptions.UniqueKey is %q for %d jobs: use Enqueue for each", opts.UniqueKey, len(args))
	}
	ins := make([]insertion, len(args))
	for i, a := range args {
		if ins[i], err = prepare(a, opts); err != nil {
			return 0, fmt.Errorf("jobs: number %d: %w", i, err)
		}
	}
	err = r.inTx(ctx, func(tx *sql.Tx) error {
		if r.d == dialect.Postgres {
			return r.insertArrays(ctx, tx, ins)
		}
		const chunk = 500 // 10 arguments each
		for at := 0; at < len(ins); at += chunk {
			var b strings.Builder
			b.WriteString(insertColumns)
			var values []any
			for i, in := range ins[at:min(at+chunk, len(ins))] {
				if i > 0 {
					b.WriteByte(',')
				}
				values = r.insertRow(&b, values, in)
			}
			if _, err := r.exec(ctx, tx, b.String(), values...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("jobs: enqueue %d jobs: %w", len(ins), err)
	}
	kinds := map[string]bool{}
	for _, in := range ins {
		if !kinds[in.kind] {
			r.enqueued(ctx, in)
		}
		kinds[in.kind] = true
	}
	return len(ins), nil
}
