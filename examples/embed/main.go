// Command embed composes the six packages in one server.
package main

import (
	"cmp"
	"context"
	"errors"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	_ "github.com/lib/pq"
	"golang.org/x/sync/errgroup"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/cluster/console"
	"github.com/nines-go/nines/dbrouter"
	"github.com/nines-go/nines/election"
	"github.com/nines-go/nines/filestore"
	"github.com/nines-go/nines/filestore/dirstore"
	"github.com/nines-go/nines/jobs"
	"github.com/nines-go/nines/wsfanout"
)

func main() {
	term, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	key := must(cluster.ParseKey(os.Getenv("CLUSTER_KEY"))) // from: go run ./examples/chat keygen
	db := must(dbrouter.Open(term, dbrouter.Config{DriverName: "postgres", DataSource: os.Getenv("DB")}))
	store := must(dirstore.Open(term, dirstore.Config{Dir: os.Getenv("FILES")}))
	node := must(cluster.New(cluster.Config{ClusterName: "production", Version: "1.4.2", Discovery: cluster.SQLDiscovery(db.Master()), Keys: [][]byte{key}, BindAddr: os.Getenv("GOSSIP")}))
	leader := must(election.New(election.Config{Members: node, DB: db.Master()}))
	hub := must(wsfanout.New(wsfanout.Config{Transport: node, Authenticate: fromSession, OnConnect: func(ctx context.Context, c *wsfanout.Conn) error {
		return c.Subscribe(ctx, "news", "user:"+c.Identity().User) // hub.Publish(ctx, "news", data, nil) on any node reaches all
	}}))
	work := must(jobs.New(jobs.Config{DB: db.Master(), Leader: leader, Cluster: node}))
	proof := must(filestore.NewProof(filestore.ProofConfig{Store: store, Cluster: node}))
	page := must(console.New(console.Config{Node: node, Cards: []console.Card{
		console.Of("database", db.Stats, db.Check), console.Of("leader", leader.Stats, leader.Check), console.Of("sockets", hub.Stats, hub.Check),
		console.Of("jobs", work.Stats, work.Check), console.Of("files", store.Stats, proof.Check)}}))
	http.Handle("/ws", hub)
	http.Handle("/ha/", page)
	http.Handle("/readyz", page.Health())
	srv := &http.Server{Addr: cmp.Or(os.Getenv("LISTEN"), ":8080"), ReadHeaderTimeout: 5 * time.Second}
	run, ctx := errgroup.WithContext(context.Background()) // not term: SIGTERM drains, a failed part stops the rest
	for _, r := range []interface{ Run(context.Context) error }{node, proof, leader, hub, work} {
		run.Go(func() error { return r.Run(ctx) })
	}
	run.Go(func() error {
		if err := srv.ListenAndServe(); err != http.ErrServerClosed {
			return err
		}
		return nil // or the group would cut the others while they drain
	})
	select {
	case <-term.Done():
	case <-ctx.Done():
	}
	bye, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err := node.Drain(bye) // readiness turns false, leadership is handed over, the proxy looks elsewhere
	for _, s := range []interface{ Shutdown(context.Context) error }{work, srv, hub, leader, proof, node} {
		err = errors.Join(err, s.Shutdown(bye))
	}
	if err = errors.Join(err, run.Wait(), db.Close()); err != nil {
		log.Fatal(err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

func fromSession(r *http.Request) (wsfanout.Identity, error) {
	c, err := r.Cookie("session")
	if err != nil {
		return wsfanout.Identity{}, err
	}
	return wsfanout.Identity{User: c.Value, Session: c.Value}, nil // your session table here
}
