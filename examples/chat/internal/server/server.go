package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	// The database/sql drivers of SqlSettings.DriverName.
	_ "github.com/go-sql-driver/mysql"
	_ "github.com/lib/pq"
	_ "modernc.org/sqlite"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/cluster/console"
	"github.com/nines-go/nines/dbrouter"
	"github.com/nines-go/nines/election"
	"github.com/nines-go/nines/examples/chat/internal/store"
	"github.com/nines-go/nines/filestore"
	"github.com/nines-go/nines/jobs"
	"github.com/nines-go/nines/wsfanout"
)

// What the nodes tell each other and the console shows.
const (
	Version = "0.1.0"
	Schema  = 1
)

// drainTimeout bounds a graceful end.
const drainTimeout = 30 * time.Second

// Options are what is not configuration.
type Options struct {
	Network cluster.Network   // of the cluster's traffic; nil is the host's
	Demo    bool              // sign-in by name alone, /demo/state, a heartbeat job, the console's buttons
	Ready   func(addr string) // called once, when the server takes work for the first time, with its HTTP address
	Logger  *slog.Logger      // nil: stderr, as LogSettings say
}

// Server is one running chat server.
type Server struct {
	cfg  Config
	opts Options
	log  *slog.Logger

	db    *dbrouter.Router
	store *store.Store
	files *filestore.Store
	node  *cluster.Node
	lead  *election.Elector
	hub   *wsfanout.Hub
	work  *jobs.Runner
	proof *filestore.Proof
	page  *console.Handler

	clients   clientAddresses
	requests  chan struct{} // a token for each request that is served
	passwords chan struct{} // a token for each password that is hashed
	attempts  attempts
	rooms     sync.Map // IDs of rooms that exist
	stats     counters
	draining  atomic.Bool
	closing   chan struct{} // closed when streams must end
}

// part is what Run starts and ends.
type part interface {
	Run(ctx context.Context) error
	Shutdown(ctx context.Context) error
}

// Run serves until stop is closed or a part fails, ends gracefully and returns; nil when asked to stop. ctx is the hard stop. An error is one
// sentence a fault, without passwords.
func Run(ctx context.Context, stop <-chan struct{}, cfg Config, opts Options) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	log := opts.Logger
	if log == nil {
		log = newLogger(cfg.LogSettings)
	}
	if ignored := cfg.Ignored(); len(ignored) > 0 {
		log.Info("settings without effect here", "settings", ignored)
	}
	opening, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-stop:
			cancel()
		case <-opening.Done():
		}
	})
	s := &Server{
		cfg: cfg, opts: opts, log: log,
		requests: make(chan struct{}, cfg.ServiceSettings.MaxRequests), passwords: make(chan struct{}, 4),
		closing: make(chan struct{}),
	}
	listener, err := s.open(opening)
	asked := isClosed(stop)
	cancel()
	wg.Wait()
	if err != nil {
		if asked {
			return nil
		}
		return err
	}
	return s.serve(ctx, stop, listener)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// serve runs all parts and ends them in order.
func (s *Server) serve(ctx context.Context, stop <-chan struct{}, listener net.Listener) error {
	web := &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 64 << 10,
		ReadTimeout: time.Duration(s.cfg.ServiceSettings.ReadTimeout) * time.Second,
		IdleTimeout: time.Duration(s.cfg.ServiceSettings.IdleTimeout) * time.Second,
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	web.RegisterOnShutdown(func() { close(s.closing) })

	run, failed := errgroup.WithContext(ctx) // not the signal's: a signal drains, a failed part stops the rest
	for name, p := range map[string]part{"cluster": s.node, "files": s.proof, "election": s.lead, "sockets": s.hub, "jobs": s.work} {
		run.Go(func() error {
			if err := p.Run(failed); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	run.Go(func() error {
		if err := web.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("http: %w", err)
		}
		return nil // or the group would cut the others while they drain
	})
	watching, watched := context.WithCancel(failed)
	run.Go(func() error { s.announce(watching, listener.Addr().String()); return nil })

	select {
	case <-stop:
	case <-failed.Done():
	}
	watched()
	s.draining.Store(true)
	s.log.Info("server drains")
	bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	// Readiness turns false, leadership is handed over, the proxy looks elsewhere.
	if err := s.node.Drain(bye); err != nil {
		s.log.Warn("not all servers know that this one stops", "error", err) // they will see it; it stops as gently as it can
	}
	var err error
	// Requests end before the hub does: what they have stored is still published.
	for _, p := range []interface{ Shutdown(context.Context) error }{s.work, web, s.hub, s.lead, s.proof, s.node} {
		err = errors.Join(err, p.Shutdown(bye))
	}
	if cause := run.Wait(); cause != nil {
		err = cause // what follows from it is of no use to the reader
	}
	err = errors.Join(err, s.closeStores())
	s.log.Info("server stopped")
	return err
}

// announce tells once that the server takes work.
func (s *Server) announce(ctx context.Context, addr string) {
	if s.node.WaitReady(ctx) != nil {
		return
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for s.unready(ctx) != nil {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	s.log.Info("server ready", "addr", addr, "node_id", s.node.ID())
	if s.opts.Ready != nil {
		s.opts.Ready(addr)
	}
}

func (s *Server) closeStores() error {
	var err error
	if s.files != nil {
		err = s.files.Close()
	}
	if s.db != nil {
		err = errors.Join(err, s.db.Close())
	}
	return err
}

func (s *Server) nodeName() string {
	host, _ := os.Hostname()
	return cmp.Or(s.cfg.ClusterSettings.NodeName, host)
}

func newLogger(cfg LogSettings) *slog.Logger {
	if !cfg.EnableConsole {
		return slog.New(slog.DiscardHandler)
	}
	l, _ := level(cfg.ConsoleLevel) // Validate has seen it
	opts := &slog.HandlerOptions{Level: l}
	if cfg.ConsoleJson {
		return slog.New(slog.NewJSONHandler(os.Stderr, opts))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, opts))
}
