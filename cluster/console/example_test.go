package console_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/cluster/console"
)

// pool is something of the program's own.
type pool struct{}

func (pool) Stats() struct{ Open, Idle int } { return struct{ Open, Idle int }{3, 1} }
func (pool) Check(context.Context) error     { return nil }

func Example() {
	level := new(slog.LevelVar)
	logs := console.NewLogs(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}), &console.LogsOptions{Level: level})
	logger := slog.New(logs) // the program's
	node, err := cluster.New(cluster.Config{ClusterName: "production", Single: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	db := pool{}
	page, err := console.New(console.Config{
		Node: node,
		Cards: []console.Card{console.Of("database", db.Stats, db.Check, console.Action{
			Name: "recycle connections", Every: true,
			Run: func(context.Context, string) error { return nil },
		})},
		Logs:         logs,
		Logger:       logger,
		AllowActions: true,
		Authorize:    func(r *http.Request) error { return nil }, // nil: this machine only
	})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/admin/ha/", page) // behind the program's own authorization
	mux.Handle("/livez", page.Health())
	mux.Handle("/readyz", page.Health())

	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/livez", nil))
	fmt.Println(w.Code)
	w = httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/admin/ha/", nil))
	fmt.Println(w.Code, w.Header().Get("Content-Type"))
	// Output:
	// 200
	// 200 text/html; charset=utf-8
}
