package dbrouter_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/jmoiron/sqlx"

	"github.com/nines-go/nines/dbrouter"
)

func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	r, err := dbrouter.Open(ctx, dbrouter.Config{
		DriverName: "sqlite", // with "postgres" or "mysql", DataSourceReplicas and DataSourceSearchReplicas name the replicas
		DataSource: filepath.Join(dir, "app.db"),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()

	if _, err := r.Master().ExecContext(ctx, "CREATE TABLE posts (id INTEGER PRIMARY KEY, text TEXT)"); err != nil {
		log.Fatal(err)
	}
	err = r.RunTx(ctx, nil, func(tx *sqlx.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO posts (text) VALUES (?)", "hello")
		return err
	})
	if err != nil {
		log.Fatal(err)
	}

	var posts []struct {
		ID   int
		Text string
	}
	// What was just written is read on the master; without UseMaster a replica that trails might not have it.
	if err := r.Replica().SelectContext(dbrouter.UseMaster(ctx), &posts, "SELECT id, text FROM posts"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(posts)
	// Output: [{1 hello}]
}
