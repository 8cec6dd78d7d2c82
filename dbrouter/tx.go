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

// txTries bounds the repetitions of RunTx.
const txTries = 10

// RunTx runs fn in a transaction on the master and commits it when fn returns nil. When the server gives up a serialization conflict or
// a deadlock (40001, 40P01, 1213, 1205, SQLITE_BUSY), or the connection is lost before COMMIT, or the master has become read only, all
// of it is done again, up to ten times: fn must not have effects outside tx. A connection lost during COMMIT returns ErrUnknownOutcome.
func (r *Router) RunTx(ctx context.Context, opts *sql.TxOptions, fn func(tx *sqlx.Tx) error) error {
	for n := 0; ; n++ {
		again, err := r.runTx(ctx, opts, fn)
		if err == nil || !again || n == txTries-1 {
			return err
		}
		select {
		case <-time.After(backoff.Delay(n, 2*time.Millisecond, 200*time.Millisecond)):
		case <-ctx.Done():
			return err
		}
	}
}

func (r *Router) runTx(ctx context.Context, opts *sql.TxOptions, fn func(tx *sqlx.Tx) error) (again bool, err error) {
	t := r.top.Load()
	repeatable := func(err error) bool {
		if ctx.Err() != nil {
			return false
		}
		switch t.classify(err) {
		case FaultRetry, FaultConnection:
			return true
		case FaultReadOnly:
			if opts == nil || !opts.ReadOnly {
				r.renew()
				return true
			}
		}
		return false
	}
	tx, err := r.master.BeginTxx(ctx, opts)
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
		return false, nil
	case t.classify(err) == FaultConnection || ctx.Err() != nil && !errors.Is(err, sql.ErrTxDone):
		return false, fmt.Errorf("dbrouter: run tx: commit: %w: %w", ErrUnknownOutcome, err)
	}
	return repeatable(err), fmt.Errorf("dbrouter: run tx: commit: %w", err)
}
