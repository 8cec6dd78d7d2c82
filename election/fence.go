package election

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"

	"github.com/nines-go/nines/election/internal/core"
	"github.com/nines-go/nines/internal/dialect"
)

// Tx is what Fence needs: *sql.Tx or *sqlx.Tx. Whatever has a BeginTx method is refused without a query: on a pool or a connection in
// autocommit the fence would be gone before the next statement. It is an alias, so that other packages can name the same parameter
// type without importing this one.
type Tx = interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// CommitTx is a transaction that Commit can end; *sql.Tx and *sqlx.Tx satisfy it.
type CommitTx = interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	Commit() error
	Rollback() error
}

// Fence fails with ErrDeposed when the term has ended, or guarantees that no later term commits before tx ends. The transaction must run
// on the master database of Config.DB. Use it inside a transaction to fail early, never inside a savepoint: rolling back to it drops
// the lock. Commit is the way to end a fenced transaction. When Fence fails, tx has been rolled back where it has a Rollback method.
func (e *Elector) Fence(ctx context.Context, tx Tx, term uint64) error {
	_, err := e.fence(ctx, tx, term)
	return err
}

// fence also returns when its statement was about to be sent.
func (e *Elector) fence(ctx context.Context, tx Tx, term uint64) (sent core.Now, err error) {
	if err := checkTx(tx); err != nil {
		return sent, err
	}
	sent, err = e.fenceOpen(ctx, tx, term)
	if err != nil {
		rollback(tx)
	}
	return sent, err
}

func (e *Elector) fenceOpen(ctx context.Context, tx Tx, term uint64) (sent core.Now, err error) {
	if e.store == nil {
		return sent, fmt.Errorf("election: Fence without Config.DB: %w", errors.ErrUnsupported)
	}
	if e.life.Closed() && e.valid() == nil {
		return sent, ErrClosed
	}
	t := e.valid()
	if t == nil || t.term != term {
		return sent, ErrDeposed
	}
	sent = e.clock.now()
	ok, err := e.store.Fence(ctx, tx, term, t.holder)
	if err != nil {
		return sent, fmt.Errorf("election: fence: %w", err)
	}
	if !ok {
		e.post(core.Doubt{Term: term})
		return sent, ErrDeposed
	}
	return sent, nil
}

// rollback ends a transaction after a fence that failed: it may hold its lock, and must not be committed.
func rollback(tx Tx) {
	if r, ok := tx.(interface{ Rollback() error }); ok {
		_ = r.Rollback()
	}
}

func checkTx(tx Tx) error {
	if isNil(tx) {
		return errors.New("election: Fence needs a transaction, not nil")
	}
	if reflect.ValueOf(tx).MethodByName("BeginTx").IsValid() {
		return fmt.Errorf("election: Fence needs a transaction, and %T is none: it has a method BeginTx", tx)
	}
	return nil
}

// Commit runs Fence as the last statement of tx, then COMMIT; tx is rolled back when the term has ended. An error that is not ErrDeposed
// and came from COMMIT itself leaves open whether the transaction happened, as with any COMMIT.
func (e *Elector) Commit(ctx context.Context, tx CommitTx, term uint64) error {
	sent, err := e.fence(ctx, tx, term)
	if err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("election: commit: %w", err)
	}
	if e.dialect == dialect.SQLite { // the fence was a renewal
		e.post(core.Renewed{Outcome: core.Granted, Term: term, Identity: "sqlite", Fenced: true, Sent: sent})
	}
	return nil
}
