package lease_test

import (
	"context"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/nines-go/nines/election/internal/core"
	"github.com/nines-go/nines/election/internal/lease"
	"github.com/nines-go/nines/internal/dialect"
	"github.com/nines-go/nines/internal/lab"
	"github.com/stretchr/testify/require"
)

// Golden scenario 17: whether the driver counts the rows that were found or those that changed makes no difference.
func TestClientFoundRows(t *testing.T) {
	for _, options := range []string{"", "?clientFoundRows=true"} {
		p := mariadbAt(t, options)
		s := p.store(time.Second)
		term := take(t, s, "a/1")
		for range 3 {
			id, ok, err := s.Renew(t.Context(), term, "a/1", "x")
			require.NoError(t, err)
			require.True(t, ok)
			require.NotEmpty(t, id)
		}
		_, ok, err := s.Renew(t.Context(), term, "b/1", "x")
		require.NoError(t, err)
		require.False(t, ok)
		row, err := s.Look(t.Context())
		require.NoError(t, err)
		for i, want := range []bool{true, false} {
			done, err := s.Revoke(t.Context(), row)
			require.NoError(t, err)
			require.Equal(t, want, done, i)
		}
		row, err = s.Look(t.Context())
		require.NoError(t, err)
		got, err := s.Acquire(t.Context(), row, "b/1", still)
		require.NoError(t, err)
		require.Equal(t, core.Granted, got.Outcome)
		got, err = s.Acquire(t.Context(), row, "c/1", still)
		require.NoError(t, err)
		require.Equal(t, core.Lost, got.Outcome)
		s.Close()
	}
}

// A server that was started again looks like before, and may have lost what it had granted: what was seen on its last run is void, and a
// lease that looks free is not, until its age says that nobody can still trust a grant of that run.
func TestMariaDBRestart(t *testing.T) {
	server := lab.MariaDB(t, 0)
	db, err := sqlx.Open("mysql", server.DSN(0))
	require.NoError(t, err)
	defer db.Close()
	p := prepare(t, place{d: dialect.MySQL, open: func() *sqlx.DB { return db }})
	const ttl = 3 * time.Second
	s := p.store(ttl)
	defer s.Close()
	term := take(t, s, "a/1")
	require.NoError(t, s.Release(t.Context(), term, "a/1", ""))
	before, err := s.Look(t.Context())
	require.NoError(t, err)
	var session string
	held, end := context.WithCancel(t.Context())
	defer end()
	require.ErrorIs(t, lease.NewLock(s).Hold(held, 7, func(name string) { session = name; end() }), context.Canceled)
	server.Kill(0)
	server.Start(0)
	var after core.Row
	require.Eventually(t, func() bool { after, err = s.Look(t.Context()); return err == nil }, 30*time.Second, 10*time.Millisecond)
	require.True(t, after.Fresh)
	require.ErrorContains(t, lease.NewLock(s).Wait(t.Context(), 7, session), "just started", "that a lock is free after a restart was taken for evidence")
	require.Equal(t, before.Identity, after.Identity)
	require.NotEqual(t, before.Conn, after.Conn)
	got, err := s.Acquire(t.Context(), before, "b/1", still)
	require.NoError(t, err)
	require.Equal(t, core.Lost, got.Outcome, "an observation of the last run of the server was good enough")
	require.Eventually(t, func() bool {
		after, err = s.Look(t.Context())
		return err == nil && !after.Fresh
	}, 30*time.Second, 50*time.Millisecond)
	got, err = s.Acquire(t.Context(), after, "b/1", still)
	require.NoError(t, err)
	require.Equal(t, core.Granted, got.Outcome)
}

// A replica, and a server that is read only, is never asked for a lease.
func TestMariaDBReadOnly(t *testing.T) {
	server := lab.MariaDB(t, 1)
	db, err := sqlx.Open("mysql", server.DSN(0))
	require.NoError(t, err)
	defer db.Close()
	p := prepare(t, place{d: dialect.MySQL, open: func() *sqlx.DB { return db }})
	s := p.store(time.Second)
	defer s.Close()
	take(t, s, "a/1")
	server.Replayed()
	replica, err := sqlx.Open("mysql", server.DSN(1))
	require.NoError(t, err)
	defer replica.Close()
	r := lease.New(replica, dialect.MySQL, "x", time.Second)
	defer r.Close()
	row, err := r.Look(t.Context())
	require.NoError(t, err)
	require.Equal(t, core.Standby, row.Identity)
	server.SetReadOnly(0, true)
	row, err = s.Look(t.Context())
	require.NoError(t, err)
	require.Equal(t, core.Standby, row.Identity)
}

// The database's data source decides whether a transaction that stands still is ended, so the log says when it is not.
func TestAdvice(t *testing.T) {
	s := mariadbAt(t, "").store(time.Second)
	defer s.Close()
	require.Contains(t, s.Advice(t.Context()), "idle_transaction_timeout=3")
	s = mariadbAt(t, "?idle_transaction_timeout=3").store(time.Second)
	defer s.Close()
	require.Empty(t, s.Advice(t.Context()))
	s = postgresAt(t).store(time.Second)
	defer s.Close()
	require.Empty(t, s.Advice(t.Context()))
}
