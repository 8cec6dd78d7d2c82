package main

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/nines-go/nines/internal/lab"
)

// jobsTB is enough of a test for package lab, which starts the servers.
type jobsTB struct {
	testing.TB
	ends []func()
}

func (t *jobsTB) Helper()                     {}
func (t *jobsTB) Context() context.Context    { return context.Background() }
func (t *jobsTB) Cleanup(fn func())           { t.ends = append(t.ends, fn) }
func (t *jobsTB) Logf(f string, args ...any)  { fmt.Fprintf(os.Stderr, f+"\n", args...) }
func (t *jobsTB) Skipf(f string, args ...any) { panic(fmt.Errorf(f, args...)) }
func (t *jobsTB) Fatalf(f string, args ...any) {
	panic(fmt.Errorf(f, args...))
}
func (t *jobsTB) Errorf(f string, args ...any) { t.Logf(f, args...) }

func (t *jobsTB) TempDir() string {
	base := os.TempDir()
	if s, err := os.Stat("/dev/shm"); err == nil && s.IsDir() {
		base = "/dev/shm"
	}
	dir, err := os.MkdirTemp(base, "peerbench-jobs-")
	if err != nil {
		panic(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (t *jobsTB) end() {
	for i := len(t.ends) - 1; i >= 0; i-- {
		t.ends[i]()
	}
	t.ends = nil
}

// jobsDatabase returns a fresh database, with a pool that both parties get alike.
func jobsDatabase(t *jobsTB, kind string) (db *sqlx.DB, dsn string) {
	var driver string
	switch kind {
	case "postgres":
		driver, dsn = lab.Database(t)
	case "mariadb":
		driver, dsn = lab.MySQL(t)
	default:
		driver, dsn = lab.SQLite(t)
	}
	db, err := sqlx.Open(driver, dsn)
	if err != nil {
		panic(err)
	}
	db.SetMaxIdleConns(10)
	if driver == "sqlite" {
		db.SetMaxOpenConns(1)
	}
	t.Cleanup(func() { db.Close() })
	return db, dsn
}
