package dbroutertest_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/nines-go/nines/dbrouter"
	"github.com/nines-go/nines/dbrouter/dbroutertest"
)

// A test of a program that reads what it has just written: the replica trails, so that a mistake shows.
func Example() {
	c := dbroutertest.New(1)
	c.Server(1).PauseReplay()
	cfg := c.Config()
	cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	ctx := context.Background()
	r, err := dbrouter.Open(ctx, cfg)
	if err != nil {
		panic(err)
	}
	defer r.Close()

	if _, err := r.Master().ExecContext(ctx, "INSERT INTO posts VALUES ('hello')"); err != nil {
		panic(err)
	}
	var row struct{ Server, Writes int }
	if err := r.Replica().GetContext(ctx, &row, "SELECT count(*) FROM posts"); err != nil {
		panic(err)
	}
	fmt.Printf("%+v\n", row)

	ctx, _ = dbrouter.WithSession(ctx)
	if _, err := r.Master().ExecContext(ctx, "INSERT INTO posts VALUES ('again')"); err != nil {
		panic(err)
	}
	if err := r.Replica().GetContext(ctx, &row, "SELECT count(*) FROM posts"); err != nil {
		panic(err)
	}
	fmt.Printf("%+v\n", row)
	// Output:
	// {Server:1 Writes:0}
	// {Server:0 Writes:2}
}
