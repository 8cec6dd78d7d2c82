package config_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/cluster/clustertest"
	"github.com/nines-go/nines/cluster/config"
)

var quiet = slog.New(slog.DiscardHandler)

type settings struct {
	ServiceSettings service
	ClusterSettings clusterSettings `nines:"local,restart"`
	SqlSettings     sqlSettings
	Flags           map[string]bool
	private         int
}

type service struct {
	SiteURL     string
	MaxSockets  int           `nines:"restart"`
	ReadTimeout time.Duration // "1m30s" in the environment
	Origins     []string
	Enable      bool
	Hooks       []hook
}

type hook struct {
	URL   string
	Token string `nines:"secret"`
}

type clusterSettings struct {
	NodeName       string
	ReadOnlyConfig bool
}

type sqlSettings struct {
	DriverName   string
	DataSource   string `nines:"secret"`
	MaxOpenConns int
}

func defaults() settings {
	return settings{
		ServiceSettings: service{MaxSockets: 100, ReadTimeout: time.Minute, Enable: true},
		SqlSettings:     sqlSettings{DriverName: "postgres", MaxOpenConns: 100},
	}
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func write(t testing.TB, path, text string) {
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

func read(t testing.TB, path string) string {
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

// path is that of a file with text; none is made of an empty text.
func path(t testing.TB, text string) string {
	p := filepath.Join(t.TempDir(), "config.json")
	if text != "" {
		write(t, p, text)
	}
	return p
}

func base(t testing.TB, text string, env ...string) config.Config[settings] {
	if env == nil {
		env = []string{}
	}
	return config.Config[settings]{
		Path: path(t, text), Default: defaults(), Env: env, EnvPrefix: "APP_", Logger: quiet,
		ReadOnly: func(c *settings) bool { return c.ClusterSettings.ReadOnlyConfig },
		Validate: func(c *settings) error {
			if c.SqlSettings.MaxOpenConns < 1 {
				return errors.New("SqlSettings.MaxOpenConns is too small: use at least 1")
			}
			return nil
		},
	}
}

func open(t testing.TB, text string, env ...string) *config.Store[settings] {
	s, err := config.Open(t.Context(), base(t, text, env...))
	require.NoError(t, err)
	return s
}

func set(fn func(c *settings)) func(c *settings) error {
	return func(c *settings) error { fn(c); return nil }
}

// server is a node with a Store, both running.
type server struct {
	*cluster.Node
	*config.Store[settings]
	end func()
}

// serve starts one of a host in memory, or a real one.
func serve(t testing.TB, ccfg cluster.Config, cfg config.Config[settings]) *server {
	n, err := cluster.New(ccfg)
	require.NoError(t, err)
	s, err := config.Open(context.Background(), cfg)
	require.NoError(t, err)
	require.NoError(t, s.Attach(n))
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() { _ = n.Run(ctx) })
	wg.Go(func() { _ = s.Run(ctx) })
	return &server{n, s, sync.OnceFunc(func() { cancel(); wg.Wait() })}
}

func (s *server) Check(ctx context.Context) error    { return s.Store.Check(ctx) }
func (s *server) Run(context.Context) error          { panic("serve does") }
func (s *server) Shutdown(ctx context.Context) error { return s.Store.Shutdown(ctx) }
func (s *server) Stats() config.Stats                { return s.Store.Stats() }
func (s *server) ready(t testing.TB)                 { require.NoError(t, s.WaitReady(within(t))) }
func linger()                                        { time.Sleep(5 * time.Second) }
func network() *clustertest.Network                  { return clustertest.New(1) }
func host(net *clustertest.Network, name string) cluster.Config {
	cfg := net.Config(name)
	cfg.Logger = quiet
	return cfg
}

// reasons are those of a code that a server finds.
func (s *server) reasons(code string) (found []cluster.Reason) {
	for _, r := range s.Status().Reasons {
		if r.Code == code {
			found = append(found, r)
		}
	}
	return found
}
