package lab_test

import (
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/internal/lab"
)

func TestMariaDBFaults(t *testing.T) {
	began := time.Now()
	c := lab.MariaDB(t, 2)
	t.Logf("primary and two replicas after %v", time.Since(began).Round(10*time.Millisecond))
	count := func(i int) (n int, err error) {
		err = open(t, "mysql", c.DSN(i)).QueryRowContext(t.Context(), "SELECT count(*) FROM a").Scan(&n)
		return n, err
	}
	counts := func(i, want int) func() bool {
		return func() bool { n, err := count(i); return err == nil && n == want }
	}
	c.Exec(0, "CREATE TABLE a (v int)")
	c.Replayed()
	require.True(t, counts(1, 0)() && counts(2, 0)())

	c.PauseReplay(1)
	c.Exec(0, "INSERT INTO a VALUES (1)")
	require.Eventually(t, counts(2, 1), time.Minute, 5*time.Millisecond)
	require.True(t, counts(1, 0)(), "a replica that does not apply shows the past")
	c.ResumeReplay(1)
	c.Replayed()
	require.True(t, counts(1, 1)())

	c.Pause(1)
	answered := make(chan error, 1)
	go func() { _, err := count(1); answered <- err }()
	select {
	case err := <-answered:
		t.Fatalf("a paused server answered: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	c.Resume(1)
	require.NoError(t, <-answered)

	c.Kill(2)
	_, err := count(2)
	require.Error(t, err)
	c.Exec(0, "INSERT INTO a VALUES (2)")
	c.Start(2)
	require.Eventually(t, counts(2, 2), time.Minute, 5*time.Millisecond)

	write := func(i int, dsn string) error {
		_, err := open(t, "mysql", dsn).ExecContext(t.Context(), "INSERT INTO a VALUES (3)")
		return err
	}
	require.ErrorContains(t, write(2, c.DSN(2)), "1290")
	require.ErrorContains(t, write(1, c.DSN(1)), "1290")
	c.SetReadOnly(0, true)
	require.ErrorContains(t, write(0, c.DSN(0)), "1290")
	c.Replayed()
	c.Promote(1)
	require.NoError(t, write(1, c.DSN(1)))
	c.Follow(2, 1)
	c.Follow(0, 1)
	require.Eventually(t, counts(2, 3), time.Minute, 5*time.Millisecond)
	require.Eventually(t, counts(0, 3), time.Minute, 5*time.Millisecond)
	require.NoError(t, write(0, c.RootDSN(0)), "a privileged user writes on a read-only server")
}

// What a session sets is not there any more for the next statement: the pooler gives another session.
func TestPgBouncerPoolsTransactions(t *testing.T) {
	c := lab.Postgres(t, 1)
	b := lab.PgBouncer(t, c)
	for i := range c.Len() {
		db := open(t, "postgres", b.DSN(i))
		var standby bool
		require.NoError(t, db.QueryRowContext(t.Context(), "SELECT pg_is_in_recovery()").Scan(&standby))
		require.Equal(t, i == 1, standby)
	}
	db := open(t, "postgres", b.DSN(0))
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	var before, during int
	require.NoError(t, tx.QueryRowContext(t.Context(), "SELECT pg_backend_pid()").Scan(&before))
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT pg_backend_pid()").Scan(&during))
	require.NotEqual(t, before, during, "a session in a transaction is not shared")
	require.NoError(t, tx.Commit())
	pids := map[int]bool{}
	for range 4 {
		conn, err := open(t, "postgres", b.DSN(0)).Conn(t.Context())
		require.NoError(t, err)
		defer conn.Close()
		var pid int
		require.NoError(t, conn.QueryRowContext(t.Context(), "SELECT pg_backend_pid()").Scan(&pid))
		pids[pid] = true
	}
	require.LessOrEqual(t, len(pids), 2, "four clients at rest share the sessions")
}

func TestS3(t *testing.T) {
	s, other := lab.S3(t), lab.S3(t)
	bucket := s.Bucket()
	client := func(s *lab.S3Server) *minio.Client {
		c, err := minio.New(s.Endpoint(), &minio.Options{Creds: credentials.NewStaticV4(s.AccessKey, s.SecretKey, "")})
		require.NoError(t, err)
		return c
	}
	_, err := client(s).PutObject(t.Context(), bucket, "a/b", strings.NewReader("hello"), 5, minio.PutObjectOptions{})
	require.NoError(t, err)
	s.Kill()
	s.Start()
	info, err := client(s).StatObject(t.Context(), bucket, "a/b", minio.StatObjectOptions{})
	require.NoError(t, err)
	require.EqualValues(t, 5, info.Size)
	ok, err := client(other).BucketExists(t.Context(), bucket)
	require.NoError(t, err)
	require.False(t, ok)
}
