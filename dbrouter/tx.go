package dbrouter

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/nines-go/nines/internal/backoff"
)

// txTries bounds the repetitions of RunTx after conflicts.
const txTries = 10

// RunTx runs fn in a transaction on the master and commits it when fn returns nil. When the server gives up a serialization conflict or
// a deadlock (40001, 40P01, 1213, 1205, SQLITE_BUSY), all of it is done again, up to ten times; and when the connection is lost before
// COMMIT, or the master has become read only, as soon as there is a master again, for Config.MasterWait. fn must not have effects outside tx. A
// connection lost during COMMIT returns ErrUnknownOutcome.
func (r *Router) RunTx(ctx context.Context, opts *sql.TxOptions, fn func(tx *sqlx.Tx) error) error {
	tr := r.trackOf(ctx)
	var lost time.Time // since when the master is away
	for n := 0; ; {
		fault, err := r.runTx(ctx, opts, fn)
		if tr != nil {
			tr.did()
		}
		switch {
		case err == nil || fault == FaultNone || ctx.Err() != nil:
			return err
		case fault == FaultRetry:
			if n++; n == txTries {
				return err
			}
			select {
			case <-time.After(backoff.Delay(n-1, 2*time.Millisecond, 200*time.Millisecond)):
			case <-ctx.Done():
				return err
			}
		default:
			t := r.top.Load()
			if lost.IsZero() {
				lost = time.Now()
			} else {
				select {
				case <-time.After(masterPause):
				case <-ctx.Done():
					return err
				}
			}
			left := t.cfg.MasterWait - time.Since(lost)
			if left <= 0 || t.closed {
				return err
			}
			_, found := r.hunted()
			timer := time.NewTimer(left)
			select {
			case <-found:
			case <-t.gone:
			case <-timer.C:
			case <-ctx.Done():
			}
			timer.Stop()
		}
	}
}

// runTx makes one attempt; the fault says why it may be made again.
func (r *Router) runTx(ctx context.Context, opts *sql.TxOptions, fn func(tx *sqlx.Tx) error) (Fault, error) {
	t := r.top.Load()
	repeatable := func(err error) Fault {
		f := t.classify(err)
		if errors.Is(err, context.Canceled) || errors.Is(err, errFenced) {
			f = FaultConnection // not by our caller: the old master was fenced
		}
		switch {
		case ctx.Err() != nil:
			return FaultNone
		case f == FaultRetry:
		case f == FaultConnection, f == FaultReadOnly && (opts == nil || !opts.ReadOnly):
			if now := r.top.Load(); now.generation == t.generation {
				r.condemn(t.master, err)
			}
		default:
			return FaultNone
		}
		return f
	}
	tx, err := r.master.beginTxx(ctx, opts, false)
	if err != nil {
		return repeatable(err), fmt.Errorf("dbrouter: run tx: begin: %w", err)
	}
	done := false
	defer func() {
		if !done {
			_ = tx.Rollback() // fn failed or panicked
		}
	}()
	if err := fn(tx); err != nil {
		return repeatable(err), err
	}
	done = true
	err = tx.Commit()
	switch {
	case err == nil:
		return FaultNone, nil
	case t.classify(err) == FaultConnection && !safe(err) || ctx.Err() != nil && !errors.Is(err, sql.ErrTxDone):
		r.condemn(t.master, err)
		return FaultNone, fmt.Errorf("dbrouter: run tx: commit: %w: %w", ErrUnknownOutcome, err)
	}
	return repeatable(err), fmt.Errorf("dbrouter: run tx: commit: %w", err)
}
