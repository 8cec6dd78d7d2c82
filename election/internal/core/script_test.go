package core_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nines-go/nines/election/internal/core"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write what the machines do into testdata")

// The scripts in testdata: a line is a time and an event; the lines below it, which begin with a dot, are the actions that follow and
// the status if it changed. Read them when they are updated: they are the specification of the machines.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(f)
			require.NoError(t, err)
			got := play(t, string(text))
			if *update {
				require.NoError(t, os.WriteFile(f, []byte(got), 0o644))
				return
			}
			require.Equal(t, string(text), got)
		})
	}
}

type machine interface {
	Step(now core.Now, ev core.Event) []core.Action
	Status(now core.Now) core.Status
	Next(now core.Now) time.Duration
}

type player struct {
	m    machine
	me   string
	wall time.Duration
	last string
	now  core.Now
}

func play(t *testing.T, text string) string {
	var b strings.Builder
	p := &player{}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, ". ") {
			continue
		}
		b.WriteString(line + "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		for _, out := range p.line(t, line) {
			b.WriteString(". " + out + "\n")
		}
	}
	return b.String()
}

func (p *player) line(t *testing.T, line string) (out []string) {
	words := strings.Fields(line)
	if words[0] == "new" {
		p.create(t, words[1:])
		return nil
	}
	at, err := time.ParseDuration(words[0])
	require.NoError(t, err, line)
	require.GreaterOrEqual(t, at, p.now.Mono, line)
	if words[1] == "wall" {
		d, err := time.ParseDuration(words[2])
		require.NoError(t, err, line)
		p.wall += d
	}
	p.now = core.Now{Mono: at, Wall: at + p.wall}
	for _, a := range p.m.Step(p.now, p.event(t, words[1], words[2:])) {
		out = append(out, strings.TrimPrefix(fmt.Sprintf("%T %+v", a, a), "core."))
	}
	s := p.m.Status(p.now)
	text := fmt.Sprintf("leader=%q term=%d known=%v mine=%v unfenced=%v: %s", s.LeaderID, s.Term, s.Known, s.Mine != 0, s.Unfenced, s.Reason)
	if s.Lock != (core.LockWish{}) {
		text += fmt.Sprintf(" [lock %+v]", s.Lock)
	}
	if text != p.last {
		p.last = text
		out = append(out, text)
	}
	require.GreaterOrEqual(t, p.m.Next(p.now), time.Duration(0))
	return out
}

func (p *player) create(t *testing.T, words []string) {
	args := pairs(words)
	cfg := core.Config{
		TTL: 3 * time.Second, Margin: 500 * time.Millisecond, Renew: time.Second, Look: 250 * time.Millisecond, Stagger: 600 * time.Millisecond,
		StableFor: 10 * time.Second, Nonce: "1",
	}
	*p = player{me: args["me"]}
	switch words[0] {
	case "lease":
		cfg.Proven = args["proven"] != ""
		p.m = core.NewLease(cfg)
	case "advisory":
		cfg.Quorum, _ = strconv.Atoi(args["quorum"])
		m := core.NewAdvisory(cfg)
		m.Clock(1000)
		p.m = m
	default:
		t.Fatal(words)
	}
}

func pairs(words []string) map[string]string {
	m := map[string]string{}
	for _, w := range words {
		k, v, _ := strings.Cut(w, "=")
		m[k] = v
	}
	return m
}

func (p *player) event(t *testing.T, word string, words []string) core.Event {
	args := pairs(words)
	term, _ := strconv.ParseUint(args["term"], 10, 64)
	sent := p.now
	if d, err := time.ParseDuration(args["took"]); err == nil {
		sent.Mono, sent.Wall = sent.Mono-d, sent.Wall-d
	}
	switch word {
	case "tick", "wall":
		return core.Tick{}
	case "saw":
		v := core.View{Me: p.me, Gone: args["gone"], Dead: args["dead"]}
		for _, w := range words {
			if strings.HasPrefix(w, "gone=") || strings.HasPrefix(w, "dead=") {
				continue
			}
			id, claim, _ := strings.Cut(w, "=")
			m := core.Member{ID: strings.TrimRight(id, "-?"), Eligible: !strings.HasSuffix(id, "-"), Suspect: strings.HasSuffix(id, "?")}
			m.Claim, _ = strconv.ParseUint(claim, 10, 64)
			v.Members = append(v.Members, m)
		}
		return core.Saw{View: v}
	case "looked":
		if e, ok := args["err"]; ok {
			return core.Looked{Err: e, At: p.now}
		}
		beat, _ := strconv.ParseInt(args["beat"], 10, 64)
		row := core.Row{Term: term, Holder: args["holder"], Beat: beat, Server: args["server"], Identity: "s1", LockSession: args["lock"]}
		if id, ok := args["id"]; ok {
			row.Identity = id
		}
		row.Conn, _ = strconv.ParseUint(args["conn"], 10, 64)
		row.Fresh = args["fresh"] != ""
		if row.Server == "" {
			row.Server = "s1"
		}
		return core.Looked{Row: row, At: p.now}
	case "acquired":
		return core.Acquired{Outcome: core.Outcome(words[0]), Term: term, Identity: "s1", Sent: sent, Err: args["err"]}
	case "renewed":
		_, fenced := args["fenced"]
		return core.Renewed{Outcome: core.Outcome(words[0]), Term: term, Identity: "s1", Sent: sent, Lock: args["lock"], Fenced: fenced, Err: args["err"]}
	case "released":
		return core.Released{Err: args["err"]}
	case "took":
		return core.Took{Done: words[0] == "done", Err: args["err"]}
	case "locktaken":
		return core.LockTaken{Term: term, Session: args["session"]}
	case "locklost":
		return core.LockLost{Term: term}
	case "evidence":
		return core.Evidence{Term: term, Session: args["session"]}
	case "idle":
		n, _ := strconv.Atoi(words[0])
		return core.Idle{Running: n}
	case "asked":
		return core.Asked{To: args["to"]}
	case "answer":
		return core.Answer{To: words[0], Willing: words[1] == "yes"}
	case "hinted":
		return core.Hinted{}
	case "confirmed":
		return core.Confirmed{ID: words[0], Yes: words[1] == "yes"}
	case "nominated":
		return core.Nominated{Term: term}
	}
	t.Fatalf("no event %q", word)
	return nil
}
