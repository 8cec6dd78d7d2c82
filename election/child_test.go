package election_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/election"
	"github.com/nines-go/nines/election/electiontest"
)

// childSpec is what a child process does: it takes part, commits fenced rows while it holds a term, and notes each moment at which it
// may act unfenced.
type childSpec struct {
	Driver, DSN, Name, Log string
	Members                []string // the names of all
	Bind                   string   // of the real cluster node; "": a fake cluster in which nobody ever dies
	Seeds                  []string
	TTL                    time.Duration
	Spin                   bool // look at the context of Lead without a pause, on one processor
}

// spin notes what a process finds that was stopped for longer than its trust and goes on: "late" when its context does not say so, else "seen".
func spin(ctx context.Context, ttl time.Duration, note func(string)) {
	for before := time.Now(); ; {
		err := ctx.Err()
		now := time.Now()
		gap := now.Sub(before)
		if before = now; gap > ttl {
			if err = ctx.Err(); err == nil {
				note("late")
			} else {
				note("seen")
			}
		}
		if err != nil {
			return
		}
		if now.UnixMicro()%10_000 < 100 { // others want to run too
			time.Sleep(time.Millisecond)
			before = time.Now()
		}
	}
}

func child(text string) {
	var spec childSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		panic(err)
	}
	db, err := sqlx.Open(spec.Driver, spec.DSN)
	if err != nil {
		panic(err)
	}
	if spec.Driver == "sqlite" {
		db.SetMaxOpenConns(1)
	}
	log, err := os.OpenFile(spec.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	cfg := election.Config{Members: spec.members(), DB: db, TTL: spec.TTL, Logger: quiet()}
	if os.Getenv("ELECTION_LOG") != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("node", spec.Name)
	}
	if spec.Spin {
		runtime.GOMAXPROCS(1)
	}
	e, err := election.New(cfg)
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	go func() { panic(e.Run(ctx)) }()
	go func() {
		for {
			_ = e.Lead(ctx, func(ctx context.Context, term uint64) error {
				if spec.Spin {
					fmt.Fprintln(log, "leads")
					spin(ctx, spec.TTL, func(what string) { fmt.Fprintln(log, what) })
					return ctx.Err()
				}
				for {
					before := time.Now()
					if ctx.Err() != nil {
						return ctx.Err()
					}
					after := time.Now()
					fmt.Fprintln(log, term, before.UnixNano(), after.UnixNano())
					tick(ctx, 2*time.Millisecond)
				}
			})
		}
	}()
	for {
		_ = e.LeadFenced(ctx, func(ctx context.Context, term uint64) error {
			for ctx.Err() == nil {
				done := make(chan struct{})
				go func() { // one that hangs in a dead network is left to itself: it may come through late
					defer close(done)
					_ = commitRow(ctx, e, db, term, spec.Name)
				}()
				select {
				case <-done:
					tick(ctx, 3*time.Millisecond)
				case <-ctx.Done():
				case <-time.After(time.Second):
				}
			}
			return ctx.Err()
		})
	}
}

// members is a real cluster node, or a fake one.
func (s *childSpec) members() election.Membership {
	if s.Bind == "" {
		c := electiontest.New()
		for _, id := range s.Members {
			if id != s.Name {
				c.Join(id)
			}
		}
		return c.Join(s.Name)
	}
	node, err := cluster.New(cluster.Config{
		ClusterName: "herd", Discovery: cluster.StaticDiscovery(s.Seeds...), InsecureNoKeys: true, BindAddr: s.Bind, NodeName: s.Name, Logger: quiet(),
	})
	if err != nil {
		panic(err)
	}
	go func() {
		err := node.Run(context.Background())
		fmt.Fprintln(os.Stderr, s.Name, "leaves the cluster:", err)
		os.Exit(1) // given up by the others: it is started again
	}()
	return node
}

// commitRow writes one row with the place that it has in the order of commits. The fence comes first too, so that a transaction of a
// process that is stopped in the middle of it does not keep the counter's row from the next leader for ever.
func commitRow(ctx context.Context, e *election.Elector, db *sqlx.DB, term uint64, name string) error {
	ctx = context.WithoutCancel(ctx)
	tx, err := db.BeginTxx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := e.Fence(ctx, tx, term); err != nil {
		return err
	}
	if _, err := tx.Exec(`UPDATE counter SET n=n+1`); err != nil {
		return err
	}
	if _, err := tx.Exec(fmt.Sprintf(`INSERT INTO effects SELECT n, %d, '%s', %d FROM counter`, term, name, time.Now().UnixNano())); err != nil {
		return err
	}
	return e.Commit(ctx, tx, term)
}

// effects are the tables that commitRow writes.
var effects = []string{
	`CREATE TABLE counter (n bigint)`, `INSERT INTO counter VALUES (0)`, `CREATE TABLE effects (n bigint, term bigint, name varchar(20), at bigint)`,
}
