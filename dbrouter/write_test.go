package dbrouter_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/dbrouter"
	"github.com/nines-go/nines/internal/lab"
)

// attempts are statements that write, or prepare a later one to write, each followed by a plain attempt.
var attempts = []string{
	"INSERT INTO a VALUES (1)",
	"insert into a values (1) returning v",
	"/* a comment */ INSERT INTO a VALUES (1)",
	"-- a comment\nINSERT INTO a VALUES (1)",
	"/* one /* nested */ */ INSERT INTO a VALUES (1)",
	"/*!50000 INSERT INTO a VALUES (1) */",
	"/*M! INSERT INTO a VALUES (1) */",
	"SELECT /*!50000 1; INSERT INTO a VALUES (1) */",
	"WITH x AS (SELECT 1) INSERT INTO a SELECT 1",
	"WITH x AS (INSERT INTO a VALUES (1) RETURNING v) SELECT * FROM x",
	"WITH x AS (DELETE FROM a RETURNING v) SELECT * FROM x",
	"SELECT v FROM a FOR UPDATE",
	"SELECT v FROM a WHERE v = 1 FOR\nUPDATE SKIP LOCKED",
	"SELECT v FROM a LOCK IN SHARE MODE",
	"SELECT write_it()",
	"SELECT count(*) FROM a WHERE write_it() > 0",
	"SELECT nextval('s')", "SELECT setval('s', 100)", "SELECT NEXTVAL(s)", "SELECT NEXT VALUE FOR s",
	"CALL write_too()",
	"UPDATE a SET v = 2", "DELETE FROM a", "TRUNCATE a", "TRUNCATE TABLE a", "REPLACE INTO a VALUES (1)",
	"CREATE TABLE b (v int)", "DROP TABLE a", "ALTER TABLE a ADD w int", "CREATE INDEX i ON a (v)",
	"SELECT * INTO b FROM a",
	"CREATE TABLE b AS SELECT 1",
	"EXPLAIN ANALYZE INSERT INTO a VALUES (1)", "ANALYZE INSERT INTO a VALUES (1)", "EXPLAIN (ANALYZE) DELETE FROM a",
	"SET SESSION TRANSACTION READ WRITE", "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", "SET default_transaction_read_only = off",
	"SET tx_read_only = 0", "SET @@session.tx_read_only = 0", "RESET ALL", "DISCARD ALL",
	"START TRANSACTION READ WRITE", "BEGIN READ WRITE", "BEGIN", "COMMIT", "ROLLBACK", "COMMIT AND CHAIN",
	"SELECT set_config('default_transaction_read_only', 'off', false)",
	"SELECT 1; INSERT INTO a VALUES (1)", "SELECT 1;INSERT INTO a VALUES (1);",
	"SELECT ';'; SET SESSION TRANSACTION READ WRITE; INSERT INTO a VALUES (1)",
	`SELECT '\'; SET SESSION TRANSACTION READ WRITE; INSERT INTO a VALUES (1); -- '`,
	`SELECT 'x\\'; INSERT INTO a VALUES (1); -- '`,
	"SELECT $$;$$; INSERT INTO a VALUES (1)",
	"SELECT 1 # ; \n; INSERT INTO a VALUES (1)",
	"SELECT 1--1; INSERT INTO a VALUES (1)",
	"EXECUTE IMMEDIATE 'INSERT INTO a VALUES (1)'",
	"PREPARE p FROM 'INSERT INTO a VALUES (1)'", "PREPARE p AS INSERT INTO a VALUES (1)", "EXECUTE p",
	"LOCK TABLES a WRITE", "UNLOCK TABLES", "DO 1", "DO $$ BEGIN INSERT INTO a VALUES (1); END $$",
	"SELECT GET_LOCK('x', 0)", "SELECT pg_try_advisory_lock(1)", "SELECT pg_advisory_unlock_all()",
	"VALUES (1)", "TABLE a", "(SELECT v FROM a)", "SHOW TABLES", "", ";", "\x00", "SELECT",
}

// ground is a router whose replica would accept writes, were it not for the router, and a look at what that replica holds.
type ground struct {
	r     *dbrouter.Router
	state func() string
}

func grounds(t testing.TB) map[string]ground {
	t.Helper()
	g := map[string]ground{}
	fingerprint := func(db *sql.DB, queries ...string) func() string {
		return func() string {
			var all []string
			for _, q := range queries {
				var s sql.NullString
				if err := db.QueryRow(q).Scan(&s); err != nil {
					panic(err)
				}
				all = append(all, s.String)
			}
			return strings.Join(all, " | ")
		}
	}
	openHere := func(cfg dbrouter.Config) *dbrouter.Router {
		cfg.Logger, cfg.MonitorInterval, cfg.QueryTimeout = quiet(), 100*time.Hour, 5*time.Second
		r, err := dbrouter.Open(context.Background(), cfg)
		require.NoError(t, err)
		t.Cleanup(func() { r.Close() })
		return r
	}
	// Two PostgreSQL databases that both accept writes.
	for _, driver := range []string{"postgres", "pgx"} {
		_, master := lab.Database(t)
		_, replica := lab.Database(t)
		db, err := sql.Open("postgres", replica)
		require.NoError(t, err)
		t.Cleanup(func() { db.Close() })
		for _, dsn := range []string{master, replica} {
			x, err := sql.Open("postgres", dsn)
			require.NoError(t, err)
			_, err = x.Exec(`CREATE TABLE a (v int); INSERT INTO a VALUES (0); CREATE SEQUENCE s;
				CREATE FUNCTION write_it() RETURNS int LANGUAGE sql AS 'INSERT INTO a VALUES (1) RETURNING v';
				CREATE PROCEDURE write_too() LANGUAGE sql AS 'INSERT INTO a VALUES (1)'`)
			require.NoError(t, err)
			require.NoError(t, x.Close())
		}
		g[driver] = ground{
			openHere(dbrouter.Config{DriverName: driver, DataSource: master, DataSourceReplicas: []string{replica}, DataSourceSearchReplicas: []string{replica}}),
			fingerprint(db, "SELECT count(*) || '/' || sum(v) || '/' || count(xmin) || min(xmin::text) || max(xmin::text) FROM a",
				"SELECT string_agg(relname || relkind::text, ',' ORDER BY relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace", "SELECT last_value || is_called::text FROM s"),
		}
	}
	// A MariaDB replica, as a user who may write where the server is read only, with several statements in one.
	c := lab.MariaDB(t, 1)
	for _, q := range []string{
		"CREATE TABLE a (v int)", "INSERT INTO a VALUES (0)", "CREATE SEQUENCE s",
		"CREATE FUNCTION write_it() RETURNS int DETERMINISTIC MODIFIES SQL DATA BEGIN INSERT INTO a VALUES (1); RETURN 1; END",
		"CREATE PROCEDURE write_too() MODIFIES SQL DATA INSERT INTO a VALUES (1)",
	} {
		c.Exec(0, q)
	}
	c.Replayed()
	db, err := sql.Open("mysql", c.RootDSN(1))
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	g["mariadb"] = ground{
		openHere(dbrouter.Config{DriverName: "mysql", DataSource: c.DSN(0) + "?multiStatements=true",
			DataSourceReplicas: []string{c.RootDSN(1) + "?multiStatements=true"}, DataSourceSearchReplicas: []string{c.RootDSN(1) + "?multiStatements=true&parseTime=true"}}),
		// The server numbers its own writes under its own identity.
		fingerprint(db, "SELECT @@gtid_binlog_pos NOT LIKE CONCAT('%-', @@server_id, '-%')"),
	}
	return g
}

// through runs a statement on every way that a Reader offers.
func (g ground) through(ctx context.Context, query string) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, rd := range []*dbrouter.Reader{g.r.Replica(), g.r.Search()} {
		var s string
		_ = rd.GetContext(ctx, &s, query)
		_ = rd.SelectContext(ctx, &[]string{}, query)
		_ = rd.QueryRowxContext(ctx, query).Scan(&s)
		if rows, err := rd.QueryContext(ctx, query); err == nil {
			for rows.Next() {
			}
			rows.Close()
		}
		if rows, err := rd.QueryxContext(ctx, query); err == nil {
			rows.Close()
		}
		if tx, err := rd.BeginReadx(ctx); err == nil {
			_, _ = tx.ExecContext(ctx, query)
			_ = tx.Rollback()
		}
	}
}

// Whatever a Reader is given, nothing is written on a replica that would let it be.
func TestNoWriteEverOnAReplica(t *testing.T) {
	t.Parallel()
	for name, g := range grounds(t) {
		t.Run(name, func(t *testing.T) {
			before := g.state()
			if name == "mariadb" {
				require.Equal(t, "1", before)
			}
			for _, query := range attempts {
				g.through(t.Context(), query)
				require.Equal(t, before, g.state(), "%q", query)
				for range 2 { // in case the session is not what it was
					_ = g.r.Replica().GetContext(t.Context(), new(int), "SELECT write_it()")
				}
				require.Equal(t, before, g.state(), "after %q", query)
			}
		})
	}
}

func FuzzNoWriteOnAReplica(f *testing.F) {
	for i := 0; i < len(attempts); i += 12 { // TestNoWriteEverOnAReplica has the rest
		f.Add(attempts[i])
	}
	all := grounds(f)
	f.Fuzz(func(t *testing.T, query string) {
		for name, g := range all {
			before := g.state()
			g.through(t.Context(), query)
			g.through(t.Context(), "SELECT write_it()")
			require.Equal(t, before, g.state(), "%s: %q", name, query)
		}
	})
}

func TestScan(t *testing.T) {
	for query, master := range map[string]bool{
		"SELECT 1": false, "  select v from a where s = 'for update'": false, "(SELECT 1) UNION (SELECT 2)": false, "SELECT 1;": false, "": false,
		"WITH x AS (SELECT 1) SELECT * FROM x": false, "SELECT updated, deleted_at FROM inserts": false, "TABLE a": false, "SHOW search_path": false,
		"SELECT a #> '{x}' FROM t": false, "SELECT $$ for update $$": false, `SELECT "for update" FROM t`: false, "SELECT $1::int -- for update\n": false,
		"SELECT v FROM a FOR UPDATE": true, "select v from a for /* x */ share": true, "SELECT nextval('s')": true, "INSERT INTO a VALUES (1)": true,
		"SET x = 1": true, "SELECT 1; SELECT 2": true, "BEGIN": true, "CALL p()": true, "/*!50000 SELECT 1 */": true, "PRAGMA query_only = 0": true,
		"WITH x AS (DELETE FROM a RETURNING v) SELECT * FROM x": true, "EXPLAIN ANALYZE UPDATE a SET v = 1": true, "SELECT 'open": true, `SELECT '\''`: true,
	} {
		require.Equal(t, master, dbrouter.BelongsOnMaster(query), query)
	}
	// What is remembered of a statement is remembered of its text, not of its place in memory.
	_, dsn := lab.Database(t)
	r := open(t, dbrouter.Config{DriverName: "postgres", DataSource: dsn, DataSourceReplicas: others(t, 1)})
	pad := "/* " + strings.Repeat("x", 74) + " */"
	text := []byte("SELECT 1 AS v       " + pad) // the two differ where the index of the memory does not look
	same := func() string { return unsafe.String(&text[0], len(text)) }
	require.NoError(t, r.Replica().GetContext(t.Context(), new(int), same()))
	before := r.Stats().ReadsToMaster
	copy(text, "SELECT nextval('s') ")
	_ = r.Replica().GetContext(t.Context(), new(int), same())
	require.Equal(t, before+1, r.Stats().ReadsToMaster, string(text))
	copy(text, "SELECT 1 AS v       ")
	require.NoError(t, r.Replica().GetContext(t.Context(), new(int), same()))
	require.Equal(t, before+1, r.Stats().ReadsToMaster, string(text))
}
