package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/cluster/console"
	"github.com/nines-go/nines/dbrouter"
	"github.com/nines-go/nines/election"
	"github.com/nines-go/nines/examples/chat/internal/store"
	"github.com/nines-go/nines/filestore"
	"github.com/nines-go/nines/filestore/dirstore"
	"github.com/nines-go/nines/jobs"
	"github.com/nines-go/nines/wsfanout"
)

// open takes the ports, opens database and files and makes all parts, in the order in which a fault costs least. When it fails nothing is left
// behind.
func (s *Server) open(ctx context.Context) (listener net.Listener, err error) {
	defer func() {
		if err != nil {
			_ = s.closeStores()
			if listener != nil {
				listener.Close()
			}
		}
	}()
	if listener, err = s.listen(ctx); err != nil {
		return nil, err
	}
	if err = s.tryGossip(ctx); err != nil {
		return listener, err
	}
	if err = s.tryNames(ctx); err != nil {
		return listener, err
	}
	if err = tryDirectory(s.cfg.FileSettings.Directory); err != nil {
		return listener, err
	}
	if err = s.openDatabase(ctx); err != nil {
		return listener, err
	}
	if s.files, err = dirstore.Open(ctx, dirstore.Config{Dir: s.cfg.FileSettings.Directory}); err != nil {
		return listener, fmt.Errorf("FileSettings.Directory %q cannot be used (%w): give a directory that this process may write and that all servers share",
			s.cfg.FileSettings.Directory, err)
	}
	return listener, s.wire(listener)
}

func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	addr := s.cfg.ServiceSettings.ListenAddress
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("ServiceSettings.ListenAddress %q cannot be listened on (%v): %s", addr, reason(err), portRemedy(err))
	}
	return l, nil
}

func portRemedy(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "stop the program that has the port, or choose another one"
	case errors.Is(err, syscall.EACCES):
		return "choose a port above 1023"
	}
	return "choose an address of this host"
}

// gossipAddr is BindAddr and GossipPort of the node: BindAddress may hold a port of its own.
func (s *Server) gossipAddr() (bind string, port int) {
	c := s.cfg.ClusterSettings
	if _, _, err := net.SplitHostPort(c.BindAddress); err == nil {
		return c.BindAddress, 0
	}
	if c.GossipPort == 0 {
		return net.JoinHostPort(c.BindAddress, "0"), 0
	}
	return c.BindAddress, c.GossipPort
}

// tryGossip takes the cluster's port and gives it back, so that a taken one is told before anything is created.
func (s *Server) tryGossip(ctx context.Context) error {
	c := s.cfg.ClusterSettings
	if !c.Enable {
		return nil
	}
	addr, port := s.gossipAddr()
	if port > 0 {
		addr = net.JoinHostPort(addr, strconv.Itoa(port))
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err == nil {
		l.Close()
		var p net.PacketConn
		if p, err = lc.ListenPacket(ctx, "udp", addr); err == nil {
			p.Close()
			return nil
		}
	}
	return fmt.Errorf("ClusterSettings.GossipPort %d (BindAddress %q) cannot be listened on (%v): %s", c.GossipPort, c.BindAddress, reason(err), portRemedy(err))
}

// tryNames resolves the names that the other servers are to be told, so that a wrong one is told before anything is created.
func (s *Server) tryNames(ctx context.Context) error {
	c := s.cfg.ClusterSettings
	if !c.Enable {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	for setting, name := range map[string]string{"AdvertiseAddress": c.AdvertiseAddress, "OverrideHostname": c.OverrideHostname} {
		if host, _, err := net.SplitHostPort(name); err == nil {
			name = host
		}
		if name == "" {
			continue
		}
		if _, err := net.DefaultResolver.LookupHost(ctx, name); err != nil {
			return fmt.Errorf("ClusterSettings.%s %q cannot be resolved (%v): give an address, or a name that the other servers know", setting, name, reason(err))
		}
	}
	return nil
}

// tryDirectory reports why dir cannot be written. It is not made when it is missing: that is more often a disk that is not mounted.
func tryDirectory(dir string) error {
	remedy := "give a directory that this process may write and that all servers share"
	bad := func(err error) error {
		return fmt.Errorf("FileSettings.Directory %q cannot be written (%v): %s", dir, reason(err), remedy)
	}
	info, err := os.Stat(dir)
	if errors.Is(err, os.ErrNotExist) {
		remedy = "create it, or mount the disk that holds it"
	}
	if err == nil && !info.IsDir() {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return bad(err)
	}
	f, err := os.CreateTemp(dir, ".nines-try-")
	if err != nil {
		return bad(err)
	}
	f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return bad(err)
	}
	return nil
}

// openTimeout bounds all of the database's opening and migrating.
const openTimeout = 14 * time.Second

func (s *Server) openDatabase(ctx context.Context) (err error) {
	c := s.cfg.SqlSettings
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	s.db, err = dbrouter.Open(ctx, dbrouter.Config{
		DriverName: c.DriverName, DataSource: c.DataSource, DataSourceReplicas: c.DataSourceReplicas, DataSourceSearchReplicas: c.DataSourceSearchReplicas,
		MaxOpenConns: c.MaxOpenConns, MaxIdleConns: c.MaxIdleConns,
		ConnMaxLifetime: time.Duration(c.ConnMaxLifetimeMilliseconds) * time.Millisecond,
		ConnMaxIdleTime: time.Duration(c.ConnMaxIdleTimeMilliseconds) * time.Millisecond,
		QueryTimeout:    time.Duration(c.QueryTimeout) * time.Second,
		Trace:           c.Trace, Logger: s.log,
	})
	if err != nil {
		return &databaseError{err}
	}
	s.store = store.New(s.db)
	if err := s.store.Migrate(ctx); err != nil {
		return fmt.Errorf("SqlSettings.DataSource %q cannot be brought up to date (%w): let the user create tables there, and look for a process that holds them",
			redact(c.DataSource), err)
	}
	return nil
}

// databaseError says that it is about SqlSettings; dbrouter names the setting, its value and what to do.
type databaseError struct{ err error }

func (e *databaseError) Error() string {
	text := strings.TrimPrefix(e.err.Error(), "dbrouter: open: ")
	if strings.HasPrefix(text, "DataSource") {
		return "SqlSettings." + text
	}
	return "SqlSettings: " + text
}

func (e *databaseError) Unwrap() error { return e.err }

// redact leaves the password out of a data source.
func redact(source string) string {
	if u, err := url.Parse(source); err == nil && u.Scheme != "" && u.Host != "" {
		if q := u.Query(); q.Has("password") {
			q.Set("password", "xxxxx")
			u.RawQuery = q.Encode()
		}
		return u.Redacted()
	}
	if i := strings.LastIndex(source, "@"); i >= 0 { // user:password@tcp(host)/name
		name, _, _ := strings.Cut(source[:i], ":")
		return name + ":xxxxx" + source[i:]
	}
	if strings.HasPrefix(source, "file:") {
		path, query, ok := strings.Cut(source, "?")
		if ok && strings.Contains(strings.ToLower(query), "key") {
			return path + "?xxxxx"
		}
		return source
	}
	words := strings.Fields(source) // host=… password=…
	for i, w := range words {
		if !strings.HasPrefix(strings.ToLower(w), "password") {
			continue
		}
		value := strings.TrimPrefix(w[len("password"):], "=")
		if value == "" || strings.HasPrefix(value, "'") && !strings.HasSuffix(value, "'") { // it goes on after a blank
			return strings.Join(append(words[:i], "password=xxxxx …"), " ")
		}
		words[i] = "password=xxxxx"
	}
	return strings.Join(words, " ")
}

// wire makes the parts. Nothing of it starts anything.
func (s *Server) wire(listener net.Listener) (err error) {
	c := s.cfg
	s.clients = newClientAddresses(c.ServiceSettings.TrustedProxies)
	var keys [][]byte
	for _, text := range c.ClusterSettings.EncryptionKeys {
		key, err := cluster.ParseKey(text)
		if err != nil {
			return err // Validate has seen it
		}
		keys = append(keys, key)
	}
	bind, port := s.gossipAddr()
	node := cluster.Config{
		Single: true, ClusterName: c.ClusterSettings.ClusterName, NodeName: s.nodeName(), Version: Version, Schema: Schema, Logger: s.log,
	}
	if c.ClusterSettings.Enable {
		node.Single = false
		node.Discovery = cluster.SQLDiscovery(s.db.Master())
		node.Keys, node.InsecureNoKeys = keys, !c.ClusterSettings.EnableGossipEncryption
		node.BindAddr, node.GossipPort = bind, port
		node.AdvertiseAddr, node.OverrideHostname = c.ClusterSettings.AdvertiseAddress, c.ClusterSettings.OverrideHostname
		node.NetworkInterface, node.UseHostname = c.ClusterSettings.NetworkInterface, !c.ClusterSettings.UseIPAddress
		node.Network = s.opts.Network
		if tcp, ok := listener.Addr().(*net.TCPAddr); ok {
			node.ServicePort = tcp.Port
		}
	}
	if s.node, err = cluster.New(node); err != nil {
		return fmt.Errorf("ClusterSettings: %w", err)
	}
	if s.lead, err = election.New(election.Config{Members: s.node, DB: s.db.Master(), NonCandidate: !c.JobSettings.RunScheduler, Logger: s.log}); err != nil {
		return err
	}
	if s.hub, err = wsfanout.New(s.hubConfig()); err != nil {
		return err
	}
	s.work, err = jobs.New(jobs.Config{
		DB: s.db.Master(), Leader: s.lead, Cluster: s.node, Logger: s.log,
		NoWorkers: !c.JobSettings.RunJobs, NoScheduler: !c.JobSettings.RunScheduler,
	})
	if err != nil {
		return err
	}
	if err := s.addJobs(); err != nil {
		return err
	}
	if s.proof, err = filestore.NewProof(filestore.ProofConfig{Store: s.files, Cluster: s.node, Logger: s.log}); err != nil {
		return err
	}
	s.page, err = console.New(console.Config{Node: s.node, AllowActions: s.opts.Demo, Cards: []console.Card{
		console.Of("database", s.db.Stats, s.db.Check, console.Action{Name: "recycle connections", Every: true,
			Run: func(ctx context.Context, _ string) error { return s.db.Recycle(ctx) }}),
		console.Of("leader", s.lead.Stats, s.lead.Check),
		console.Of("sockets", s.hub.Stats, s.hub.Check),
		console.Of("jobs", s.work.Stats, s.work.Check, console.Action{Name: "run retention now",
			Run: func(ctx context.Context, _ string) error { return s.work.RunNow(ctx, "retention") }}),
		console.Of("files", s.files.Stats, s.proof.Check),
		console.Of("chat", s.figures, s.check),
	}})
	return err
}
