package lease

import (
	"context"
	"database/sql"
	"errors"

	"github.com/nines-go/nines/internal/dialect"
)

// Fence reports whether the term is still its holder's, inside a transaction of the user, and holds off every later term until that
// transaction ends: its acquire has to change the row that is locked here.
func (s *Store) Fence(ctx context.Context, tx Tx, term uint64, holder string) (bool, error) {
	switch s.Dialect {
	case dialect.Postgres:
		// The join to the beats refuses a lease that was revoked, although its term has not changed yet: share locks do not queue, so
		// transactions that follow each other closely could keep a takeover waiting for ever. The timeout ends the transaction of a
		// process that was stopped in the middle of it.
		return found(tx.QueryRowContext(ctx, `SELECT 1 FROM nines_lease_terms t JOIN nines_lease_beats b ON b.name=t.name, set_config('idle_in_transaction_session_timeout','3s',true)
			WHERE t.name=$1 AND t.term=$2 AND t.holder=$3 AND b.term=t.term AND b.holder=t.holder FOR SHARE OF t`, s.Name, term, holder))
	case dialect.MySQL:
		return found(tx.QueryRowContext(ctx, `SELECT 1 FROM nines_lease_terms WHERE name=? AND term=? AND holder=? LOCK IN SHARE MODE`, s.Name, term, holder))
	}
	// One writer at a time: the transaction that is fenced keeps renewals out, so it renews.
	ok, err := found(tx.QueryRowContext(ctx, `UPDATE nines_lease_beats SET beat=beat+1, server='sqlite', expires_us=`+s.now()+`+? WHERE name=? AND holder=? AND term=? RETURNING 1`,
		s.TTL.Microseconds(), s.Name, holder, term))
	if err != nil || !ok {
		return false, err
	}
	return found(tx.QueryRowContext(ctx, `SELECT 1 FROM nines_lease_terms WHERE name=? AND holder=? AND term=?`, s.Name, holder, term))
}

func found(row *sql.Row) (bool, error) {
	var one int
	err := row.Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}
