package dbrouter_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/dbrouter"
	"github.com/nines-go/nines/internal/dialect"
	"github.com/nines-go/nines/internal/lab"
)

// A commit whose record ends a page of the log is reached by replicas without another write: the place where the next record would begin lies
// behind the header of a page that nobody has written yet.
func TestTokenAtTheEndOfAPage(t *testing.T) {
	t.Parallel()
	const block, header, room = 8192, 24, 120
	_, r := cluster(t, "pgx", func(cfg *dbrouter.Config) { cfg.DataSourceReplicas = cfg.DataSourceReplicas[:1] })
	ctx := t.Context()
	place := func() (lsn int) {
		require.NoError(t, r.Master().GetContext(ctx, &lsn, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint"))
		return lsn
	}
	const message = "SELECT pg_logical_emit_message(true, 'x', repeat('x', $1))"
	_, err := r.Master().ExecContext(ctx, message, 0)
	require.NoError(t, err)
	base := 0 // what an empty message and its commit take
	for {
		before := place()
		_, err := r.Master().ExecContext(ctx, message, 0)
		require.NoError(t, err)
		after := place()
		if before/block == after/block {
			base = after - before
			break
		}
	}
	hits, want := 0, rounds(12, 1000)
	for range 100 * want {
		if hits == want {
			break
		}
		left := block - place()%block
		if left < base || left > base+room || (left-base)%8 != 0 {
			fill := max(left-2*base-room/2, 0)
			_, err := r.Master().ExecContext(ctx, message, fill)
			require.NoError(t, err)
			continue
		}
		sctx, session := dbrouter.WithSession(ctx)
		_, err := r.Master().ExecContext(sctx, message, left-base)
		require.NoError(t, err)
		if place()%block != header {
			continue // something else was written, too
		}
		hits++
		token, err := session.Token(sctx)
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			p, err := port(dbrouter.WithToken(ctx, token), r.Replica())
			return err == nil && p != must(port(dbrouter.UseMaster(ctx), r.Replica()))
		}, 5*time.Second, time.Millisecond, "the token is stuck")
	}
	require.Equal(t, want, hits)
}

// Commits that are not flushed yet are waited for, too.
func TestOwnReadsWithoutSynchronousCommit(t *testing.T) {
	t.Parallel()
	c, r := cluster(t, "postgres", nil)
	c.Exec(0, "ALTER SYSTEM SET synchronous_commit = off")
	c.Exec(0, "SELECT pg_reload_conf()")
	c.Exec(0, "CREATE TABLE own (n int)")
	c.Replayed()
	var setting string
	eventually(t, "commits do not wait", func() bool {
		_ = r.Master().GetContext(t.Context(), &setting, "SELECT current_setting('synchronous_commit')")
		return setting == "off"
	})
	replica := 0
	for n := range rounds(200, 20_000) {
		ctx, _ := dbrouter.WithSession(t.Context())
		_, err := r.Master().ExecContext(ctx, "INSERT INTO own VALUES ($1)", n)
		require.NoError(t, err)
		var got struct {
			N    int
			Port string
		}
		require.NoError(t, r.Replica().GetContext(ctx, &got, "SELECT max(n) AS n, current_setting('port') AS port FROM own"))
		require.Equal(t, n, got.N)
		if "127.0.0.1:"+got.Port != c.Addr(0) {
			replica++
		}
	}
	t.Logf("%d of the reads by replicas", replica)
}

func TestPositions(t *testing.T) {
	for _, x := range []struct{ at, want uint64 }{
		{0x1000018, 0x1000018}, {0x1002018, 0x1002000}, {0x1000028, 0x1000000}, {0x1002028, 0x1002028}, {0x2000018, 0x2000018}, {0x1001fff, 0x1001fff},
	} {
		require.Equal(t, x.want, dbrouter.WithoutHeader(x.at, 8192, 16<<20), "%x", x.at)
	}
	m, p := dialect.MySQL, dialect.Postgres
	for _, x := range []struct {
		d      dialect.Dialect
		a, b   dbrouter.Position
		covers bool
	}{
		{p, dbrouter.At(1, 100), dbrouter.At(1, 100), true},
		{p, dbrouter.At(1, 99), dbrouter.At(1, 100), false},
		{p, dbrouter.At(2, 100), dbrouter.At(1, 100), true},
		{p, dbrouter.At(2, 99), dbrouter.At(1, 100), false},
		{p, dbrouter.At(1, 200), dbrouter.At(2, 100), false},
		{p, nil, dbrouter.At(1, 1), false},
		{p, nil, nil, true},
		{m, dbrouter.GTIDs("0-1-100"), dbrouter.GTIDs("0-2-100"), true},
		{m, dbrouter.GTIDs("0-1-100,1-1-5"), dbrouter.GTIDs("0-1-100"), true},
		{m, dbrouter.GTIDs("0-1-100"), dbrouter.GTIDs("0-1-100,1-1-5"), false},
		{m, dbrouter.GTIDs(""), dbrouter.GTIDs("0-1-1"), false},
		{m, dbrouter.GTIDSet("3E11FA47-71CA-11E1-9E33-C80AA9429562:1-23"), dbrouter.GTIDSet("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-20"), true},
		{m, dbrouter.GTIDSet("3E11FA47-71CA-11E1-9E33-C80AA9429562:1-19:21-25"), dbrouter.GTIDSet("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-20"), false},
	} {
		require.Equal(t, x.covers, dbrouter.Covers(x.d, x.a, x.b), "%v %v %v", x.d, x.a, x.b)
		both := dbrouter.Merge(x.d, x.a, x.b)
		require.True(t, dbrouter.Covers(x.d, both, x.b) || x.d == p && len(x.a) > 0 && len(x.b) > 0, "%v %v", x.a, x.b)
	}
	require.Equal(t, dbrouter.At(2, 50), dbrouter.Merge(p, dbrouter.At(1, 100), dbrouter.At(2, 50)), "what lies beyond the branch is lost")
}

func FuzzToken(f *testing.F) {
	_, dsn := lab.SQLite(f)
	r, err := dbrouter.Open(f.Context(), dbrouter.Config{DriverName: "sqlite", DataSource: dsn, Logger: quiet(), TokenKey: []byte("0123456789abcdef")})
	require.NoError(f, err)
	f.Cleanup(func() { r.Close() })
	for _, s := range []string{"", ".", "AAAA", "AWdk", "AQAAAAAAAAAAAA", fmt.Sprint(make([]byte, 100))} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		require.False(t, r.Accepts(token), "a token that was not signed")
	})
}

func FuzzPosition(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4})
	f.Add([]byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, ok := dbrouter.ParsePosition(b); ok {
			q, ok := dbrouter.ParsePosition(dbrouter.AppendPosition(p))
			require.True(t, ok)
			require.Equal(t, p, q)
		}
	})
}
