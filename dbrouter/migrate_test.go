package dbrouter_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/dbrouter"
	"github.com/nines-go/nines/internal/lab"
)

// schema is the same migration for all dialects; what it inserts shows how often it ran.
func schema(faulty bool) fstest.MapFS {
	files := fstest.MapFS{}
	for _, d := range []string{"postgres", "mysql", "sqlite"} {
		files[d+"/0001_log.sql"] = &fstest.MapFile{Data: []byte("CREATE TABLE log (v int);\nINSERT INTO log VALUES (1);\n")}
		second := "INSERT INTO log VALUES (2);\n"
		if faulty {
			second += "INSERT INTO nowhere VALUES (3);\n"
		} else {
			second += "INSERT INTO log VALUES (3);\n"
		}
		files[d+"/0002_more.sql"] = &fstest.MapFile{Data: []byte(second)}
	}
	return files
}

func migrateChild() {
	_, _ = io.ReadAll(os.Stdin) // all start together
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := dbrouter.Open(ctx, dbrouter.Config{DriverName: os.Getenv("D"), DataSource: os.Getenv("M"), Logger: quiet()})
	if err == nil {
		err = r.Migrate(ctx, "test", schema(false))
		r.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Eight processes that start at once migrate once. Before, one of them fails: it says where, and holds up nobody.
func TestMigrateWithEightProcesses(t *testing.T) {
	t.Parallel()
	for name, fresh := range map[string]func(testing.TB) (string, string){"postgres": lab.Database, "mysql": lab.MySQL, "sqlite": lab.SQLite} {
		t.Run(name, func(t *testing.T) {
			driver, dsn := fresh(t)
			r := open(t, dbrouter.Config{DriverName: driver, DataSource: dsn})
			err := r.Migrate(t.Context(), "test", schema(true))
			require.ErrorContains(t, err, "migrate test: 0002_more.sql, statement 2:")
			require.NotContains(t, err.Error(), "hunter2")
			switch name {
			case "postgres":
				var n int
				require.NoError(t, r.Master().GetContext(t.Context(), &n, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"))
				require.Zero(t, n, "no lock is left")
			case "mysql":
				var free sql.NullBool
				require.NoError(t, r.Master().GetContext(t.Context(), &free, "SELECT IS_FREE_LOCK('nines.migrate.test')"))
				require.True(t, free.Bool, "no lock is left")
			}
			var cmds []*exec.Cmd
			var starts []io.Closer
			for range 8 {
				cmd := exec.Command(os.Args[0], "-test.run=^TestChildProcess$")
				cmd.Env = append(os.Environ(), childEnv+"=migrate", "D="+driver, "M="+dsn)
				cmd.Stderr = os.Stderr
				in, err := cmd.StdinPipe()
				require.NoError(t, err)
				require.NoError(t, cmd.Start())
				cmds, starts = append(cmds, cmd), append(starts, in)
			}
			began := time.Now()
			for _, s := range starts {
				s.Close()
			}
			for _, cmd := range cmds {
				require.NoError(t, cmd.Wait())
			}
			var vs []int
			require.NoError(t, r.Master().SelectContext(t.Context(), &vs, "SELECT v FROM log ORDER BY v"))
			require.Equal(t, []int{1, 2, 3}, vs, "each statement ran once")
			t.Logf("%s: eight processes took %v", name, time.Since(began).Round(time.Millisecond))
			edited := schema(false)
			for f := range edited {
				edited[f] = &fstest.MapFile{Data: []byte("CREATE TABLE other (v int);\n")}
			}
			require.ErrorContains(t, r.Migrate(t.Context(), "test", edited), "another text")
		})
	}
}
