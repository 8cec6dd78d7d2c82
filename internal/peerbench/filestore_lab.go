package main

import (
	"context"
	"fmt"
	"os"
	"testing"
)

// filesTB is enough of a test for package lab, which starts the object store.
type filesTB struct {
	testing.TB
	ends []func()
}

func (t *filesTB) Helper()                      {}
func (t *filesTB) Context() context.Context     { return context.Background() }
func (t *filesTB) Cleanup(fn func())            { t.ends = append(t.ends, fn) }
func (t *filesTB) Logf(f string, args ...any)   { fmt.Fprintf(os.Stderr, f+"\n", args...) }
func (t *filesTB) Skipf(f string, args ...any)  { panic(fmt.Errorf(f, args...)) }
func (t *filesTB) Fatalf(f string, args ...any) { panic(fmt.Errorf(f, args...)) }
func (t *filesTB) Errorf(f string, args ...any) { t.Logf(f, args...) }

func (t *filesTB) end() {
	for i := len(t.ends) - 1; i >= 0; i-- {
		t.ends[i]()
	}
}
