package home_test

import (
	"bufio"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/wsfanout/internal/cursor"
	"github.com/nines-go/nines/wsfanout/internal/home"
	"github.com/nines-go/nines/wsfanout/internal/wire"
)

var update = flag.Bool("update", false, "write the scripts' outcomes anew; read the difference")

// TestGolden runs the scripts in testdata/golden. A script is a list of blocks: commands, a line ----, and what they lead to:
// every message sent, acknowledgement and client event, in order. Lines beginning with # are remarks. Commands:
//
//	order A B C          rendezvous order of the partition
//	hot 250              bytes of records that go with a move, for nodes started afterwards
//	start A B C          start nodes; each sees all of them, settled
//	join J [: ids]       start a node that sees itself and the ids
//	view A: A B [C=dead] tell A its membership; fates of those that are not members, or =draining
//	given c              run to rest and attach client c at node C to topic t (c is the lower-case name of its node)
//	attach c C [cursor]  attach a client with its cursor, or the one given
//	publish C m1         publish on topic t
//	send A>B [n]         let the next n messages (all that are queued) from A to B arrive
//	lose A>B             drop what is queued from A to B
//	run [A B …]          deliver until nothing is left, between these nodes only
//	tick [A] d           let time pass, in steps of 250 ms
//	crash A · drain A · leave A · pause A d
//	state                what everyone knows
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/golden/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) { runScript(t, f) })
	}
}

func runScript(t *testing.T, file string, off ...home.Rule) {
	got, want := playScript(t, file, off...)
	if *update && len(off) == 0 {
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
		return
	}
	require.Equal(t, want, got)
}

// playScript returns what a script's file would be with today's outcomes, and what it is.
func playScript(t testing.TB, file string, off ...home.Rule) (got, want string) {
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	s := &stage{t: t, nodes: map[string]*home.Node{}, queues: map[[2]string][]home.Message{}, clients: map[string]*actor{}, off: off}
	var out strings.Builder
	expected := false
	sc := bufio.NewScanner(strings.NewReader(string(text)))
	for sc.Scan() {
		line := sc.Text()
		switch {
		case expected && line == "":
			expected = false
			out.WriteString("\n")
		case expected:
		case line == "----":
			expected = true
			out.WriteString("----\n" + s.flush())
		default:
			out.WriteString(line + "\n")
			if line != "" && line[0] != '#' {
				s.command(line)
			}
		}
	}
	return out.String(), string(text)
}

// A stage is a set of nodes whose messages are delivered by hand.
type stage struct {
	t       testing.TB
	now     time.Duration
	nodes   map[string]*home.Node
	fates   map[string]map[string]home.Fate
	order   []string
	queues  map[[2]string][]home.Message
	sent    [][2]string // order of first use of queues, for run
	clients map[string]*actor
	byConn  map[string]map[home.ClientID]*actor
	conns   home.ClientID
	lines   []string
	off     []home.Rule
	hush    bool
	cfg     home.Config
	all     bool // partitions, in their own order
	digests bool // not only for show
}

type actor struct {
	name string
	cur  cursor.Cursor
	node string
	conn home.ClientID
}

func (s *stage) say(format string, args ...any) {
	if !s.hush {
		s.lines = append(s.lines, fmt.Sprintf(format, args...))
	}
}

func (s *stage) flush() string {
	if len(s.lines) == 0 {
		return "nothing\n"
	}
	out := strings.Join(s.lines, "\n") + "\n"
	s.lines = nil
	return out
}

func (s *stage) command(line string) {
	line, _, _ = strings.Cut(line, " #")
	f := strings.Fields(line)
	switch args := f[1:]; f[0] {
	case "order":
		s.order = args
	case "hot":
		n, err := strconv.Atoi(args[0])
		require.NoError(s.t, err)
		s.cfg.HotBytes = n
	case "start":
		for _, id := range args {
			s.start(id)
		}
		s.hush = true
		for _, id := range args {
			s.view(id, args)
		}
		s.hush = false
	case "join":
		s.start(args[0])
		s.view(args[0], append(slices.Clone(args[1:]), args[0]))
	case "view":
		s.view(strings.TrimSuffix(args[0], ":"), args[1:])
	case "given":
		s.hush = true
		s.run(nil)
		c := &actor{name: args[0]}
		s.clients[c.name] = c
		s.attach(c, strings.ToUpper(c.name))
		s.run(nil)
		s.hush = false
		s.say("client %s stands at %v", c.name, c.cur.Pos)
	case "attach":
		c := s.clients[args[0]]
		if c == nil {
			c = &actor{name: args[0]}
			s.clients[c.name] = c
		}
		if len(args) > 2 {
			cur, err := cursor.Parse(args[2])
			require.NoError(s.t, err, line)
			c.cur = cur
		}
		s.attach(c, args[1])
	case "detach":
		s.detach(s.clients[args[0]])
	case "publish":
		_, err := s.nodes[args[0]].Publish(s.now, home.Publish{Topic: "t", ID: args[1], Data: []byte(args[1])})
		require.NoError(s.t, err)
		s.take(args[0])
	case "send":
		from, to, _ := strings.Cut(args[0], ">")
		n := len(s.queues[[2]string{from, to}])
		if len(args) > 1 {
			n, _ = strconv.Atoi(args[1])
		}
		for range n {
			s.deliver(from, to)
		}
	case "lose":
		from, to, _ := strings.Cut(args[0], ">")
		s.queues[[2]string{from, to}] = nil
	case "run":
		s.run(args)
	case "tick":
		ids := slices.Sorted(maps.Keys(s.nodes))
		if len(args) > 1 {
			ids = args[:len(args)-1]
		}
		d, err := time.ParseDuration(args[len(args)-1])
		require.NoError(s.t, err)
		for ; d > 0; d -= 250 * time.Millisecond {
			s.now += 250 * time.Millisecond
			for _, id := range ids {
				s.nodes[id].Tick(s.now)
				s.take(id)
			}
		}
	case "crash":
		delete(s.nodes, args[0])
	case "drain":
		s.fates[args[0]][args[0]] = home.Draining
		s.nodes[args[0]].Drain(s.now)
		s.take(args[0])
	case "leave":
		s.say("%s may leave: %v", args[0], s.nodes[args[0]].MayLeave())
		if s.nodes[args[0]].MayLeave() {
			s.nodes[args[0]].Leave(s.now)
			s.take(args[0])
		}
	case "pause":
		d, err := time.ParseDuration(args[1])
		require.NoError(s.t, err)
		s.now += d
		s.nodes[args[0]].Paused(s.now, d)
		s.take(args[0])
	case "state":
		s.state()
	default:
		require.Fail(s.t, "no such command", line)
	}
}

func (s *stage) start(id string) {
	cfg := s.cfg
	if cfg.ID = id; !s.all {
		cfg.Partitions = 1
	}
	n, err := home.New(cfg)
	require.NoError(s.t, err)
	n.Order(s.order...)
	n.Without(s.off...)
	s.nodes[id] = n
	if s.fates == nil {
		s.fates, s.byConn = map[string]map[string]home.Fate{}, map[string]map[home.ClientID]*actor{}
	}
	s.fates[id], s.byConn[id] = map[string]home.Fate{}, map[home.ClientID]*actor{}
}

func (s *stage) view(id string, words []string) {
	fates := s.fates[id]
	var alive []string
	for k := range fates {
		if k != id && fates[k] == home.Alive {
			fates[k] = home.Failed
		}
	}
	for _, w := range words {
		x, f, set := strings.Cut(w, "=")
		fates[x] = home.Alive
		if set {
			fates[x] = home.ParseFate(f)
		}
		if fates[x] == home.Alive || fates[x] == home.Draining {
			alive = append(alive, x)
		}
	}
	s.nodes[id].SetView(s.now, home.View{Settled: true, Alive: alive, Fate: func(x string) home.Fate { return fates[x] }})
	s.take(id)
}

func (s *stage) attach(c *actor, node string) {
	s.detach(c)
	s.conns++
	c.node, c.conn = node, s.conns
	s.byConn[node][c.conn] = c
	s.nodes[node].Attach(s.now, c.conn, "t", c.cur.Clone())
	s.take(node)
}

func (s *stage) detach(c *actor) {
	if n := s.nodes[c.node]; n != nil {
		n.Detach(s.now, c.conn, "t")
		delete(s.byConn[c.node], c.conn)
		s.take(c.node)
	}
	c.node = ""
}

func (s *stage) deliver(from, to string) {
	k := [2]string{from, to}
	q := s.queues[k]
	require.NotEmpty(s.t, q, "nothing from %s to %s", from, to)
	s.queues[k] = q[1:]
	n := s.nodes[to]
	if n == nil {
		return
	}
	frames := wire.Encode(q[:1])
	require.Len(s.t, frames, 1)
	ms, err := wire.Decode(frames[0])
	require.NoError(s.t, err)
	n.Receive(s.now, from, ms)
	s.take(to)
}

// run delivers the oldest message first, until none is left between these nodes.
func (s *stage) run(ids []string) {
	in := func(id string) bool { return len(ids) == 0 || slices.Contains(ids, id) }
	for {
		i := slices.IndexFunc(s.sent, func(k [2]string) bool { return in(k[0]) && in(k[1]) })
		if i < 0 {
			return
		}
		k := s.sent[i]
		s.sent = slices.Delete(s.sent, i, i+1)
		if len(s.queues[k]) > 0 {
			s.deliver(k[0], k[1])
		}
	}
}

func (s *stage) take(id string) {
	o := s.nodes[id].Take()
	for _, f := range o.Frames {
		for _, m := range f.Messages {
			if _, ok := m.(*wire.Digest); ok && !s.digests {
				continue
			}
			s.say("%s → %s %s", id, f.To, show(m))
			k := [2]string{id, f.To}
			s.queues[k] = append(s.queues[k], m)
			s.sent = append(s.sent, k)
		}
	}
	for _, a := range o.Acks {
		if a.Err != nil {
			s.say("%s: publish %s: %v", id, a.ID, a.Err)
		} else {
			s.say("%s: publish %s acknowledged at %v, copies %d", id, a.ID, a.At, a.Copies)
		}
	}
	for _, e := range o.Events {
		s.event(id, e)
	}
}

func (s *stage) event(id string, e home.Event) {
	switch e := e.(type) {
	case *home.Answer:
		c := s.byConn[id][e.Client]
		switch e.Kind {
		case home.Fresh:
			s.say("%s: client %s fresh at %v", id, c.name, e.Start)
		case home.Resumed:
			s.say("%s: client %s resumed(%d) at %v", id, c.name, len(e.Records), e.Start)
		case home.Gapped:
			s.say("%s: client %s GAP %s from %v to %v", id, c.name, e.Reason, e.From, e.Start)
		}
		c.cur.Start(e.Start)
		s.records(id, c, e.Records)
	case *home.Deliver:
		for _, x := range e.Clients {
			c := s.byConn[id][x]
			if e.Gap != nil {
				s.say("%s: client %s GAP %s from %v to %v", id, c.name, e.Gap.Reason, e.Gap.From, e.Gap.Start)
				c.cur.Start(e.Gap.Start)
			}
			s.records(id, c, e.Records)
		}
	}
}

func (s *stage) records(id string, c *actor, rs []*home.Record) {
	for _, r := range rs {
		shown, err := c.cur.Take(r.Position, r.Kind == wire.Gap, r.ID)
		if err != nil {
			s.say("%s: client %s at %v HOLE before %s", id, c.name, c.cur.Pos, showRecord(r))
			continue
		}
		verb := "sees"
		if !shown {
			verb = "has seen"
		}
		s.say("%s: client %s %s %s", id, c.name, verb, showRecord(r))
	}
}

func (s *stage) state() {
	for _, id := range slices.Sorted(maps.Keys(s.nodes)) {
		st := s.nodes[id].State(0)
		var line strings.Builder
		line.WriteString(fmt.Sprintf("%s %s promised %s active %s replica %s", id, st.Role, term(st.Promised), term(st.Active), name(st.Replica)))
		if st.HasCopy {
			line.WriteString(fmt.Sprintf(" copy of %s epochs", term(st.Acc)))
			for _, l := range st.Lineage {
				line.WriteString(" " + l.Epoch.String())
				if !l.Verified {
					line.WriteString("?")
				}
			}
			if st.Token {
				line.WriteString(" token")
			}
			line.WriteString(showRecords(st.Topics["t"].Records))
		}
		if st.Orphans > 0 {
			line.WriteString(fmt.Sprintf(" orphans %d", st.Orphans))
		}
		s.say("%s", line.String())
	}
	for _, n := range slices.Sorted(maps.Keys(s.clients)) {
		c := s.clients[n]
		s.say("client %s at %s cursor %s", n, name(c.node), c.cur)
	}
}
