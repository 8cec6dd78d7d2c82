package dbrouter_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/dbrouter"
)

const workers = 16

// ownReads tells how many reads were stale, and how many a replica served.
type ownReads struct{ reads, stale, replica atomic.Int64 }

func (o *ownReads) String() string {
	return fmt.Sprintf("%d reads of own writes, %d stale, %.1f %% by replicas", o.reads.Load(), o.stale.Load(), o.share())
}

func (o *ownReads) share() float64 {
	return 100 * float64(o.replica.Load()) / float64(max(o.reads.Load(), 1))
}

// book is a table of numbers that only grow, one for each worker.
func (s *setup) book(t *testing.T) {
	s.Exec(0, "CREATE TABLE own (w int, n int, PRIMARY KEY (w, n))")
	s.Replayed()
}

type entry struct{ N, Port int }

// latest reads the last number of a worker, and which server said so.
func (s *setup) latest(ctx context.Context, r *dbrouter.Router, w int) (e entry, err error) {
	err = r.Replica().GetContext(ctx, &e, fmt.Sprintf("SELECT COALESCE(max(n), 0) AS n, %s AS port FROM own WHERE w = %d", s.port, w))
	return e, err
}

func insert(w, n int) string { return fmt.Sprintf("INSERT INTO own VALUES (%d, %d)", w, n) }

// Nobody misses what he has written: in a session, through a token on another router, through HTTP on another server, in another process.
func testOwnReads(t *testing.T, s *setup) {
	a, b := open(t, s.config()), open(t, s.config())
	process := child(t, s)
	servers := [2]*httptest.Server{}
	for i, r := range []*dbrouter.Router{a, b} {
		mux := http.NewServeMux()
		mux.HandleFunc("POST /{w}/{n}", func(w http.ResponseWriter, req *http.Request) {
			_, err := r.Master().ExecContext(req.Context(), fmt.Sprintf("INSERT INTO own VALUES (%s, %s)", req.PathValue("w"), req.PathValue("n")))
			if err != nil {
				http.Error(w, err.Error(), 500)
			}
		})
		mux.HandleFunc("GET /{w}", func(w http.ResponseWriter, req *http.Request) {
			var id int
			fmt.Sscan(req.PathValue("w"), &id)
			e, err := s.latest(req.Context(), r, id)
			if err != nil {
				http.Error(w, err.Error(), 500)
				return
			}
			fmt.Fprint(w, e.N, " ", e.Port)
		})
		servers[i] = httptest.NewServer(r.Middleware(mux))
		t.Cleanup(servers[i].Close)
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2 * workers}}
	t.Cleanup(client.CloseIdleConnections)

	base := 0
	best(t, s.name, func() (fmt.Stringer, bool) {
		var sum ownReads
		var wg sync.WaitGroup
		n := rounds(40, 100_000/workers)
		for w := range workers {
			wg.Go(func() {
				note := func(e entry, err error, n int) bool {
					if err != nil {
						t.Errorf("worker %d: %v", w, err)
						return false
					}
					sum.reads.Add(1)
					if e.N < n {
						sum.stale.Add(1)
					}
					if s.at(e.Port) > 0 {
						sum.replica.Add(1)
					}
					return true
				}
				token, header := "", ""
				for i := base + 1; i <= base+n; i++ {
					ctx, session := dbrouter.WithSession(t.Context())
					var e entry
					var err error
					switch i % 5 {
					case 0: // a session
						if _, err = a.Master().ExecContext(ctx, insert(w, i)); err == nil {
							e, err = s.latest(ctx, a, w)
						}
					case 1: // a transaction of the caller, whose end the router does not see
						var tx *sqlx.Tx
						if tx, err = a.Master().BeginTxx(ctx, nil); err == nil {
							if _, err = tx.ExecContext(ctx, insert(w, i)); err == nil {
								if err = tx.Commit(); err == nil {
									e, err = s.latest(ctx, a, w)
								}
							}
						}
					case 2: // a token, on another router
						if err = a.RunTx(ctx, nil, func(tx *sqlx.Tx) error { _, err := tx.ExecContext(ctx, insert(w, i)); return err }); err == nil {
							if token, err = session.Token(ctx); err == nil {
								e, err = s.latest(dbrouter.WithToken(t.Context(), token), b, w)
							}
						}
					case 3: // in another process
						if _, err = a.Master().ExecContext(ctx, insert(w, i)); err == nil {
							if token, err = session.Token(ctx); err == nil {
								e, err = process.latest(token, w)
							}
						}
					case 4: // HTTP: written on one server, read on the other
						header, err = post(client, fmt.Sprintf("%s/%d/%d", servers[i/5%2].URL, w, i))
						if err == nil {
							e, err = get(client, fmt.Sprintf("%s/%d", servers[1-i/5%2].URL, w), header)
						}
					}
					if !note(e, err, i) {
						return
					}
				}
			})
		}
		wg.Wait()
		base += n
		require.Zero(t, sum.stale.Load(), "stale reads")
		lag := s.lag(t, base)
		t.Logf("%s: the replicas trail by %v", s.name, lag.Round(100*time.Microsecond))
		return &sum, sum.share() >= 90 || lag > 10*time.Millisecond
	})
	t.Logf("%d reads of sessions waited for a replica, %d ran on the master", a.Stats().OwnWaited+b.Stats().OwnWaited, a.Stats().OwnOnMaster+b.Stats().OwnOnMaster)
}

// lag is how long replicas need here to show a commit: the most of ten.
func (s *setup) lag(t *testing.T, base int) (most time.Duration) {
	master, replica := s.direct(t, 0), s.direct(t, 1)
	require.NoError(t, replica.Ping())
	for n := range 10 {
		_, err := master.Exec(insert(5000+base, n+1))
		require.NoError(t, err)
		began := time.Now()
		for found := 0; found == 0; {
			require.NoError(t, replica.QueryRow(fmt.Sprintf("SELECT count(*) FROM own WHERE w = %d AND n = %d", 5000+base, n+1)).Scan(&found))
		}
		most = max(most, time.Since(began))
	}
	return most
}

func post(c *http.Client, url string) (token string, err error) {
	resp, err := c.Post(url, "text/plain", nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 200 {
		return "", fmt.Errorf("%s: %s", resp.Status, body)
	}
	for _, c := range resp.Cookies() {
		if c.Name == dbrouter.TokenCookie {
			if !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode {
				return "", fmt.Errorf("cookie %v", c)
			}
			return c.Value, nil
		}
	}
	return "", fmt.Errorf("no cookie")
}

func get(c *http.Client, url, token string) (e entry, err error) {
	req, _ := http.NewRequest("GET", url, nil)
	req.AddCookie(&http.Cookie{Name: dbrouter.TokenCookie, Value: token})
	resp, err := c.Do(req)
	if err != nil {
		return e, err
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 200 {
		return e, fmt.Errorf("%s: %s", resp.Status, body)
	}
	_, err = fmt.Sscan(string(body), &e.N, &e.Port)
	return e, err
}

// otherProcess is another process with a router.
type otherProcess struct {
	mu  sync.Mutex
	in  io.WriteCloser
	out *bufio.Reader
}

const childEnv = "NINES_DBROUTER_CHILD"

func child(t *testing.T, s *setup) *otherProcess {
	cfg := s.config()
	cmd := exec.Command(os.Args[0], "-test.run=^TestChildProcess$", "-test.v=false")
	cmd.Env = append(os.Environ(), childEnv+"=read", "D="+cfg.DriverName, "M="+cfg.DataSource, "R="+strings.Join(cfg.DataSourceReplicas, "|"),
		"K="+string(cfg.TokenKey), "P="+s.port, fmt.Sprint("B=", cfg.Pooler))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	return &otherProcess{in: in, out: bufio.NewReader(out)}
}

func (p *otherProcess) latest(token string, w int) (e entry, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err = fmt.Fprintln(p.in, token, w); err != nil {
		return e, err
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		return e, err
	}
	if _, err = fmt.Sscan(line, &e.N, &e.Port); err != nil {
		err = fmt.Errorf("the other process: %s", line)
	}
	return e, err
}

// TestChildProcess is the other process of tests; by itself it does nothing.
func TestChildProcess(t *testing.T) {
	switch os.Getenv(childEnv) {
	case "read":
		s := &setup{driver: os.Getenv("D"), port: os.Getenv("P")}
		r, err := dbrouter.Open(context.Background(), dbrouter.Config{DriverName: s.driver, DataSource: os.Getenv("M"), Pooler: os.Getenv("B") == "true",
			DataSourceReplicas: strings.Split(os.Getenv("R"), "|"), TokenKey: []byte(os.Getenv("K")), MonitorInterval: 200 * time.Millisecond, Logger: quiet()})
		if err != nil {
			fmt.Println("open:", err)
			return
		}
		defer r.Close()
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
			var token string
			var w int
			fmt.Sscan(lines.Text(), &token, &w)
			if e, err := s.latest(dbrouter.WithToken(context.Background(), token), r, w); err != nil {
				fmt.Println(err)
			} else {
				fmt.Println(e.N, e.Port)
			}
		}
	case "migrate":
		migrateChild()
	}
}

// A session never goes back in time, while its reads move between replicas of different lag.
func testMonotonic(t *testing.T, s *setup) {
	cfg := s.config()
	cfg.MonitorInterval = 50 * time.Millisecond
	cfg.DataSourceReplicas, cfg.DataSourceSearchReplicas = cfg.DataSourceReplicas[:1], cfg.DataSourceReplicas[1:]
	r := open(t, cfg)
	s.Exec(0, "CREATE TABLE clock (v int)")
	s.Exec(0, "INSERT INTO clock VALUES (0)")
	s.Replayed()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		for ctx.Err() == nil {
			_, _ = r.Master().ExecContext(ctx, "UPDATE clock SET v = v + 1")
		}
	})
	var back, seen atomic.Int64
	deadline := time.Now().Add(time.Duration(rounds(2, 30)) * time.Second)
	var readers sync.WaitGroup
	for w := range workers {
		readers.Go(func() {
			for n := 0; time.Now().Before(deadline); n++ {
				ctx, session := dbrouter.WithSession(t.Context())
				last := -1
				for i := range 10 {
					rd := []*dbrouter.Reader{r.Replica(), r.Search()}[(w+i)%2]
					var v int
					if err := rd.GetContext(ctx, &v, "SELECT v FROM clock"); err != nil {
						t.Error(err)
						return
					}
					if v < last {
						back.Add(1)
					}
					last = v
					seen.Add(1)
					if i == 5 { // it goes on elsewhere
						token, err := session.Token(ctx)
						if err != nil {
							t.Error(err)
							return
						}
						ctx, session = dbrouter.WithSession(dbrouter.WithToken(t.Context(), token))
					}
				}
			}
		})
	}
	for range 4 {
		s.PauseReplay(1)
		<-time.After(150 * time.Millisecond)
		s.ResumeReplay(1)
		s.PauseReplay(2)
		<-time.After(150 * time.Millisecond)
		s.ResumeReplay(2)
	}
	readers.Wait()
	require.Zero(t, back.Load(), "reads that went back in time, of %d", seen.Load())
	t.Logf("%d reads of sessions on two tiers, one of which lags: none went back", seen.Load())
}

// Tokens that cannot be trusted, or say nothing here, mean the master and no error.
func testStrangeTokens(t *testing.T, s *setup) {
	cfg := s.config()
	r := open(t, cfg)
	written := 0
	give := func(r *dbrouter.Router) string {
		t.Helper()
		ctx, session := dbrouter.WithSession(t.Context())
		written++
		_, err := r.Master().ExecContext(ctx, insert(99, written))
		require.NoError(t, err)
		token, err := session.Token(ctx)
		require.NoError(t, err)
		return token
	}
	token := give(r)
	require.LessOrEqual(t, len(token), 40+22)
	cfg.TokenTTL = 100 * time.Millisecond
	hasty := open(t, cfg)
	cfg.TokenKey = []byte("another key, of other servers...")
	foreign := open(t, cfg)
	read := func(r *dbrouter.Router, token string) int {
		t.Helper()
		i, err := s.serves(dbrouter.WithToken(t.Context(), token), r.Replica())
		require.NoError(t, err)
		return i
	}
	eventually(t, "a good one leads to a replica", func() bool { return read(r, token) > 0 })
	forged := []byte(token)
	forged[len(forged)/2] ^= 1
	require.Zero(t, read(r, string(forged)), "forged")
	require.Zero(t, read(r, "nonsense"), "nonsense")
	require.Zero(t, read(r, strings.Repeat("x", 1<<20)), "too long")
	require.Zero(t, read(foreign, token), "foreign")
	require.Positive(t, read(foreign, ""), "none")
	expired := give(hasty)
	<-time.After(1200 * time.Millisecond) // whole seconds
	for range 10 {
		require.Zero(t, read(r, expired), "expired")
	}
}
