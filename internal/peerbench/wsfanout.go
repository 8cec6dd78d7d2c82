package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

func init() {
	products["fanout"] = fanoutRows
	roles["fanout-server"] = fanoutServer
	roles["fanout-clients"] = fanoutClients
}

// A fan-out server has one topic. Its messages contain one mark each, by which the clients, in a process of their own, count them in whatever a party
// wraps around: they tell how far the slowest is, so that the server keeps so many messages in flight.

const (
	fanoutMark  = '|'
	fanoutFlow  = 32
	fanoutRate  = 20_000 // deliveries a second, for the processor's time at ordinary rates
	fanoutBytes = 128
)

// party is one server: a handler for sockets that are subscribed when they have sent what subscribe returns, and a way to publish.
type party struct {
	handler http.Handler
	publish func(data []byte)
	joined  func() int
	close   func()
}

// parties and what a client of each sends, in order, waiting for an answer to each.
var parties = map[string]struct {
	make  func() (*party, error)
	hello []string
}{
	"ours":       {oursFanout, []string{`{"type":"subscribe","ref":1,"topics":{"room":""}}`}},
	"raw":        {rawFanout, nil},
	"gws":        {gwsFanout, nil},
	"coder":      {coderFanout, nil},
	"centrifuge": {centrifugeFanout, []string{`{"id":1,"connect":{}}`, `{"id":2,"subscribe":{"channel":"room","recover":false}}`}},
}

type fanoutJob struct {
	Party, Addr string
	Clients     int
}

// fanoutResult is what a server measured over some seconds.
type fanoutResult struct {
	Addr       string
	Deliveries float64 // a second
	CPU        float64 // seconds of this process for a million deliveries
	Bytes      float64 // of resident memory for each idle subscriber
	PacedCPU   float64
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func resident() float64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseFloat(strings.Fields(string(b))[1], 64)
	return n * float64(os.Getpagesize())
}

func fanoutServer(arg string, say func(any)) error {
	var job struct {
		fanoutJob
		Length time.Duration
	}
	if err := json.Unmarshal([]byte(arg), &job); err != nil {
		return err
	}
	p, err := parties[job.Party].make()
	if err != nil {
		return err
	}
	defer p.close()
	var slowest atomic.Int64 // messages that every client has
	mux := http.NewServeMux()
	mux.Handle("/ws", p.handler)
	feedback := make(chan struct{}, 1)
	mux.HandleFunc("/have", func(w http.ResponseWriter, r *http.Request) { // one long request of the clients: a line each millisecond
		buf := make([]byte, 8)
		for {
			if _, err := readFull(r.Body, buf); err != nil {
				return
			}
			var n int64
			for _, b := range buf {
				n = n<<8 | int64(b)
			}
			slowest.Store(n)
			select {
			case feedback <- struct{}{}:
			default:
			}
		}
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go http.Serve(l, mux)
	before := resident()
	say(fanoutResult{Addr: l.Addr().String()})
	for deadline := time.Now().Add(time.Minute); p.joined() < job.Clients; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d clients have come", p.joined(), job.Clients)
		}
	}
	time.Sleep(500 * time.Millisecond)
	each := (resident() - before) / float64(job.Clients)

	payload := append([]byte(`{"t":"`), bytes.Repeat([]byte("x"), fanoutBytes-9)...)
	payload = append(payload, fanoutMark, '"', '}')
	sent := int64(0)
	// Closed loop.
	measure := func(length time.Duration, paced time.Duration) (perSecond, cpu float64) {
		var tick <-chan time.Time
		if paced > 0 {
			t := time.NewTicker(paced)
			defer t.Stop()
			tick = t.C
		}
		begun, busy, from := time.Now(), cpuTime(), slowest.Load()
		for time.Since(begun) < length {
			for paced == 0 && sent-slowest.Load() >= fanoutFlow {
				select {
				case <-feedback:
				case <-time.After(time.Second):
				}
			}
			if paced > 0 {
				<-tick
			}
			p.publish(payload)
			sent++
		}
		for end := time.Now().Add(5 * time.Second); slowest.Load() < sent && time.Now().Before(end); time.Sleep(time.Millisecond) {
		}
		n := float64(slowest.Load()-from) * float64(job.Clients)
		return n / time.Since(begun).Seconds(), (cpuTime() - busy).Seconds() / n * 1e6
	}
	measure(job.Length/4, 0) // warm
	r := fanoutResult{Bytes: each}
	r.Deliveries, r.CPU = measure(job.Length, 0)
	_, r.PacedCPU = measure(job.Length, time.Duration(job.Clients)*time.Second/fanoutRate)
	say(r)
	return nil
}

func readFull(r interface{ Read([]byte) (int, error) }, b []byte) (int, error) {
	n := 0
	for n < len(b) {
		k, err := r.Read(b[n:])
		if n += k; err != nil {
			return n, err
		}
	}
	return n, nil
}

// fanoutClients are plain readers: they count marks.
func fanoutClients(arg string, say func(any)) error {
	var job fanoutJob
	if err := json.Unmarshal([]byte(arg), &job); err != nil {
		return err
	}
	counts := make([]atomic.Int64, job.Clients)
	for i := range counts {
		c, err := net.Dial("tcp", job.Addr)
		if err != nil {
			return err
		}
		fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
		buf := make([]byte, 4096)
		if n, err := c.Read(buf); err != nil || !bytes.Contains(buf[:n], []byte(" 101 ")) {
			return fmt.Errorf("handshake: %q %v", buf[:n], err)
		}
		for _, h := range parties[job.Party].hello {
			if _, err := c.Write(append([]byte{0x81, 0x80 | byte(len(h)), 0, 0, 0, 0}, h...)); err != nil {
				return err
			}
			if _, err := c.Read(buf); err != nil {
				return err
			}
		}
		go func() {
			buf := make([]byte, 32<<10)
			for {
				n, err := c.Read(buf)
				if err != nil {
					return
				}
				counts[i].Add(int64(bytes.Count(buf[:n], []byte{fanoutMark})))
			}
		}()
	}
	say("ready")
	pr, pw := newPipe()
	go func() {
		for range time.Tick(time.Millisecond) {
			least := counts[0].Load()
			for i := range counts {
				least = min(least, counts[i].Load())
			}
			pw(least)
		}
	}()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://"+job.Addr+"/have", pr)
	if err != nil {
		return err
	}
	_, err = http.DefaultClient.Do(req)
	return err
}

// newPipe returns a reader of numbers, eight bytes each, that are written to it.
func newPipe() (*pipeReader, func(int64)) {
	p := &pipeReader{next: make(chan int64, 1)}
	return p, func(n int64) {
		select {
		case p.next <- n:
		default:
		}
	}
}

type pipeReader struct{ next chan int64 }

func (p *pipeReader) Read(b []byte) (int, error) {
	n := <-p.next
	for i := range 8 {
		b[i] = byte(n >> (56 - 8*i))
	}
	return 8, nil
}

func (b *bench) fanout(party string, clients int) (r fanoutResult, err error) {
	var all [4][]float64
	for range b.rounds {
		server, err := start("fanout-server", map[string]any{"Party": party, "Clients": clients, "Length": b.length})
		if err != nil {
			return r, err
		}
		one, err := b.fanoutOnce(server, party, clients)
		server.end()
		if err != nil {
			return r, fmt.Errorf("%s, %d: %w", party, clients, err)
		}
		for i, x := range []float64{one.Deliveries, one.CPU, one.Bytes, one.PacedCPU} {
			all[i] = append(all[i], x)
		}
	}
	return fanoutResult{Deliveries: median(all[0]), CPU: median(all[1]), Bytes: median(all[2]), PacedCPU: median(all[3])}, nil
}

func (b *bench) fanoutOnce(server *child, party string, clients int) (r fanoutResult, err error) {
	if err := server.hear(&r); err != nil {
		return r, err
	}
	readers, err := start("fanout-clients", fanoutJob{Party: party, Addr: r.Addr, Clients: clients})
	if err != nil {
		return r, err
	}
	defer readers.end()
	var ready string
	if err := readers.hear(&ready); err != nil {
		return r, err
	}
	return r, server.hear(&r)
}

func fanoutRows(b *bench) ([]row, error) {
	sizes := []int{1000, 5000}
	if b.quick {
		sizes = sizes[:1]
	}
	var rows []row
	for _, n := range sizes {
		got := map[string]fanoutResult{}
		for _, party := range []string{"raw", "ours", "centrifuge", "gws", "coder"} {
			r, err := b.fanout(party, n)
			if err != nil {
				return nil, err
			}
			got[party] = r
		}
		figures := func(value func(fanoutResult) float64) (ours, limit float64, peers map[string]float64) {
			peers = map[string]float64{}
			for name, r := range got {
				switch name {
				case "ours":
					ours = value(r)
				case "raw":
					limit = value(r)
				default:
					peers[name] = value(r)
				}
			}
			return ours, limit, peers
		}
		times := map[int]float64{1000: 2, 5000: 3}[n]
		add := func(name, unit string, value func(fanoutResult) float64) row {
			ours, limit, peers := figures(value)
			return row{Name: fmt.Sprintf("fanout.%s.%d", name, n), Unit: unit, Ours: ours, Limit: limit, Peers: peers}
		}
		deliveries := func(r fanoutResult) float64 { return r.Deliveries }
		paced := func(r fanoutResult) float64 { return r.PacedCPU }
		rows = append(rows,
			add("deliveries", "1/s", deliveries).atLeast(times, got["centrifuge"].Deliveries, "centrifuge"),
			add("cpu", "s/M", func(r fanoutResult) float64 { return r.CPU }),
			add("cpu20k", "s/M", paced).atMost(0.55, got["centrifuge"].PacedCPU, "centrifuge"),
			add("cpu20k.limit", "s/M", paced).atMost(1.05, got["raw"].PacedCPU, "raw"),
			add("memory", "B", func(r fanoutResult) float64 { return r.Bytes }).atMost(1, 7500, "7.5 KB"))
	}
	return rows, nil
}
