package cluster_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/cluster/clustertest"
	"github.com/nines-go/nines/internal/lab"
)

// databases runs test on every SQL database that is there.
func databases(t *testing.T, test func(t *testing.T, open func() *sqlx.DB)) {
	for name, where := range map[string]func(testing.TB) (driver, dsn string){"sqlite": lab.SQLite, "postgres": lab.Database, "mysql": lab.MySQL} {
		t.Run(name, func(t *testing.T) {
			driver, dsn := where(t)
			test(t, func() *sqlx.DB {
				db, err := sqlx.Open(driver, dsn)
				require.NoError(t, err)
				t.Cleanup(func() { db.Close() })
				return db
			})
		})
	}
}

func TestSQLDiscoveryConforms(t *testing.T) {
	databases(t, func(t *testing.T, open func() *sqlx.DB) {
		clustertest.TestDiscovery(t, func(*testing.T) cluster.Discovery { return cluster.SQLDiscovery(open()) })
	})
}

func TestSQLDiscovery(t *testing.T) {
	databases(t, func(t *testing.T, open func() *sqlx.DB) {
		ctx := within(t)
		db := open()
		d := cluster.SQLDiscovery(db)
		e := cluster.Entry{ID: cluster.NewID(), Type: "ignored", ClusterName: "c", Hostname: "10.0.0.1", GossipPort: 8074, Port: 8065}
		require.Error(t, d.Heartbeat(ctx, e.ID), "a row that is not there cannot be renewed")
		require.NoError(t, d.Register(ctx, e))
		require.NoError(t, d.Register(ctx, e), "again is the same")
		other := e
		other.ID, other.ClusterName = cluster.NewID(), "other"
		require.NoError(t, d.Register(ctx, other))
		require.NoError(t, d.Heartbeat(ctx, e.ID))
		seeds, err := d.Seeds(ctx, "c")
		require.NoError(t, err)
		require.Len(t, seeds, 1)
		require.WithinDuration(t, time.Now(), seeds[0].LastPingAt, time.Minute)
		require.WithinDuration(t, time.Now(), seeds[0].CreateAt, time.Minute)
		got := seeds[0]
		got.CreateAt, got.LastPingAt = time.Time{}, time.Time{}
		e.Type = "nines"
		require.Equal(t, e, got)

		rows, err := db.Queryx("SELECT * FROM ClusterDiscovery")
		require.NoError(t, err)
		columns, err := rows.Columns()
		require.NoError(t, err)
		require.NoError(t, rows.Close())
		require.Equal(t, []string{"id", "type", "clustername", "hostname", "gossipport", "port", "createat", "lastpingat"}, columns)

		// Stale rows are not seeds, and any node deletes them.
		_, err = db.Exec(db.Rebind("UPDATE ClusterDiscovery SET lastpingat=lastpingat-? WHERE id=?"), (31 * time.Minute).Milliseconds(), other.ID)
		require.NoError(t, err)
		seeds, err = d.Seeds(ctx, "other")
		require.NoError(t, err)
		require.Empty(t, seeds)
		require.NoError(t, d.Heartbeat(ctx, e.ID))
		var n int
		require.NoError(t, db.Get(&n, "SELECT count(*) FROM ClusterDiscovery"))
		require.Equal(t, 1, n)
		require.NoError(t, d.Deregister(ctx, e.ID))
		require.NoError(t, d.Deregister(ctx, e.ID))
		require.NoError(t, db.Get(&n, "SELECT count(*) FROM ClusterDiscovery"))
		require.Zero(t, n)
	})
}

func TestNodesFindEachOtherThroughTheDatabase(t *testing.T) {
	databases(t, func(t *testing.T, open func() *sqlx.DB) {
		var nodes []*running
		for i := range 3 { // all at the same time, each with its own pool: nobody has made the table
			nodes = append(nodes, start(t, cluster.SQLDiscovery(open()), func(c *cluster.Config) { c.NodeName = fmt.Sprint("n", i) }))
		}
		agree(t, nodes...)
		db := open()
		count := func() (n int) {
			require.NoError(t, db.Get(&n, "SELECT count(*) FROM ClusterDiscovery"))
			return n
		}
		require.Equal(t, 3, count())
		require.NoError(t, nodes[0].Shutdown(within(t)))
		require.Equal(t, 2, count(), "deleted when it leaves")
		nodes[1].kill()
		eventually(t, func() bool { return count() == 1 }, nil) // who is proven dead is deleted by a survivor
		agree(t, nodes[2])
	})
}

func TestStaticDiscovery(t *testing.T) {
	a := start(t, cluster.StaticDiscovery(), nil)
	require.NoError(t, a.WaitReady(within(t)))
	list := []string{a.Addr(), "127.0.0.1:1"}
	b := start(t, cluster.StaticDiscovery(list...), nil)
	c := start(t, cluster.StaticDiscovery(list...), nil)
	agree(t, a, b, c)
	require.Less(t, a.ID(), b.ID(), "IDs sort by age")
}

func TestDNSDiscovery(t *testing.T) {
	a := start(t, cluster.StaticDiscovery(), nil)
	require.NoError(t, a.WaitReady(within(t)))
	_, port, _ := cutAddr(a.Addr())
	b := start(t, cluster.DNSDiscovery("localhost:"+port), nil)
	agree(t, a, b)
}

func cutAddr(addr string) (host, port string, err error) {
	for i := len(addr) - 1; i >= 0; i-- {
		if addr[i] == ':' {
			return addr[:i], addr[i+1:], nil
		}
	}
	return "", "", fmt.Errorf("no port in %q", addr)
}

func TestAClusterOutlivesItsDiscovery(t *testing.T) {
	t.Parallel()
	b := newBoard()
	a := start(t, b, nil)
	require.NoError(t, a.WaitReady(within(t)))
	b.mu.Lock()
	b.down = fmt.Errorf("database is away")
	b.mu.Unlock()
	c := start(t, b, nil)
	require.NoError(t, c.WaitReady(within(t)), "it starts alone, after 1.5 s")
	err := c.Check(context.Background())
	require.ErrorContains(t, err, "database is away")
	b.mu.Lock()
	b.down = nil
	b.mu.Unlock()
	agree(t, a, c)
	eventually(t, func() bool { return c.Check(context.Background()) == nil }, nil)
}

func TestMigrationsHaveEveryDialect(t *testing.T) {
	for _, d := range []string{"postgres", "mysql", "sqlite"} {
		f, err := cluster.Migrations().Open(filepath.Join(d, "0001_discovery.sql"))
		require.NoError(t, err)
		f.Close()
	}
}
