package console

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nines-go/nines/cluster"
)

// The topics on which consoles ask each other.
const (
	statusTopic = "nines.console.status"
	actionTopic = "nines.console.action"
)

// document is status.json. Its schema number changes when a field changes its meaning.
type document struct {
	Schema       int       `json:"schema"`
	At           time.Time `json:"at"`
	Node         string    `json:"node"` // that answered
	Verdict      verdict   `json:"verdict"`
	Nodes        []node    `json:"nodes"`
	AllowActions bool      `json:"allow_actions"`
}

type verdict struct {
	Level string `json:"level"` // green, amber, red
	Text  string `json:"text"`
}

// node is one member as the answering node sees it, and its own cards as it told them.
type node struct {
	ID            string            `json:"id"`
	Name          string            `json:"name"`
	Addr          string            `json:"addr"`
	Version       string            `json:"version"`
	SchemaVersion int               `json:"schema_version"`
	State         string            `json:"state"`
	Level         string            `json:"level"`
	Reasons       []reason          `json:"reasons"`
	Self          bool              `json:"self"`
	Started       time.Time         `json:"started"`
	LastSeen      time.Time         `json:"last_seen"`
	ClockOffset   float64           `json:"clock_offset_seconds"`
	Draining      bool              `json:"draining"`
	Tags          map[string]string `json:"tags,omitempty"`
	Cards         []card            `json:"cards"`
	Error         string            `json:"error,omitempty"` // why it did not answer
}

type reason struct {
	Code   string `json:"code"`
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"`
}

// card is one card of one node.
type card struct {
	Name    string          `json:"name"`
	Level   string          `json:"level"`
	Error   string          `json:"error,omitempty"`
	Remedy  string          `json:"remedy,omitempty"`
	Stats   json.RawMessage `json:"stats"`
	Actions []action        `json:"actions,omitempty"`
}

type action struct {
	Name  string `json:"name"`
	Every bool   `json:"every"`
}

// local runs this node's checks and reads its figures.
func (h *Handler) local(ctx context.Context) []card {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cards := make([]card, len(h.cfg.Cards))
	var wg sync.WaitGroup
	for i, c := range h.cfg.Cards {
		wg.Go(func() {
			out := card{Name: c.Name, Level: "green", Stats: json.RawMessage("null")}
			if c.Check != nil {
				if err := c.Check(ctx); err != nil {
					out.Level, out.Error, out.Remedy = judge(err)
				}
			}
			if c.Stats != nil {
				out.Stats = encode(c.Stats())
			}
			for _, a := range c.Actions {
				out.Actions = append(out.Actions, action{a.Name, a.Every})
			}
			cards[i] = out
		})
	}
	wg.Wait()
	return cards
}

// judge reads what a Check's error says of itself.
func judge(err error) (level, text, remedy string) {
	level = "red"
	var w interface{ Warning() bool }
	if errors.As(err, &w) && w.Warning() {
		level = "amber"
	}
	var r interface{ Remedy() string }
	if errors.As(err, &r) {
		remedy = r.Remedy()
	}
	return level, err.Error(), remedy
}

func (h *Handler) answerStatus(ctx context.Context, _ string, _ []byte) ([]byte, error) {
	return json.Marshal(h.local(ctx))
}

// status asks every node for its cards and puts them beside what this node knows of the members.
func (h *Handler) status(ctx context.Context) document {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	n := h.cfg.Node
	var own []card
	var replies map[string]cluster.Reply
	var wg sync.WaitGroup
	wg.Go(func() { own = h.local(ctx) })
	wg.Go(func() { replies = n.Gather(ctx, statusTopic, nil) })
	wg.Wait()

	self := n.ID()
	doc := document{Schema: 1, At: time.Now(), Node: self, AllowActions: h.cfg.AllowActions}
	for _, m := range n.Status().Members {
		out := member(m)
		out.Self = m.Member.ID == self
		reply, asked := replies[m.Member.ID]
		switch {
		case out.Self:
			out.Cards = own
		case !asked:
		case reply.Err != nil:
			out.Error = reply.Err.Error()
		default:
			if err := json.Unmarshal(reply.Payload, &out.Cards); err != nil {
				out.Error = "its answer cannot be read: " + err.Error()
			}
		}
		doc.Nodes = append(doc.Nodes, out)
	}
	slices.SortStableFunc(doc.Nodes, func(a, b node) int {
		return strings.Compare(a.Name+"\x00"+a.ID, b.Name+"\x00"+b.ID)
	})
	doc.Verdict = conclude(doc.Nodes)
	return doc
}

func member(m cluster.MemberStatus) node {
	out := node{
		ID: m.Member.ID, Name: m.Member.Name, Addr: m.Member.Addr, Version: m.Member.Version, SchemaVersion: m.Member.Schema,
		State: fmt.Sprint(m.Member.State), Level: fmt.Sprint(m.Level), Started: m.Member.Started, LastSeen: m.Member.LastSeen,
		ClockOffset: m.Member.ClockOffset.Seconds(), Draining: m.Member.Draining, Tags: m.Member.Tags, Cards: []card{}, Reasons: []reason{},
	}
	for _, r := range m.Reasons {
		out.Reasons = append(out.Reasons, reason{r.Code, r.Text, r.Remedy})
	}
	return out
}

// conclude is the one line at the top: the worst that any node says, with its remedy.
func conclude(nodes []node) verdict {
	rank := map[string]int{"green": 0, "amber": 1, "red": 2}
	present := 0
	worst := verdict{Level: "green"}
	note := func(level, text, remedy string) {
		if rank[level] <= rank[worst.Level] {
			return
		}
		if remedy != "" {
			text += ": " + remedy
		}
		worst = verdict{level, text}
	}
	for _, n := range nodes {
		name := cmp.Or(n.Name, n.ID)
		if n.State == "alive" || n.State == "suspect" || n.State == "draining" {
			present++
		}
		for _, r := range n.Reasons {
			text := r.Text
			if !strings.HasPrefix(text, name+" ") {
				text = name + ": " + text
			}
			note(n.Level, text, r.Remedy)
		}
		for _, c := range n.Cards {
			note(c.Level, name+", "+c.Name+": "+c.Error, c.Remedy)
		}
		if n.Error != "" {
			note("amber", name+" does not answer the console: "+n.Error, "")
		}
		note(n.Level, name+" is "+n.State, "")
	}
	if worst.Level == "green" {
		worst.Text = fmt.Sprintf("%d of %d nodes are well", present, len(nodes))
	}
	return worst
}

func (h *Handler) serveStatus(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(h.status(r.Context()))
}

// serveEvents streams the status once a second; the page falls back to polling where a proxy does not let the stream through.
func (h *Handler) serveEvents(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no")
	out := http.NewResponseController(w)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		b, err := json.Marshal(h.status(r.Context()))
		if err != nil {
			return
		}
		_ = out.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if _, err := fmt.Fprintf(w, "data: %s\n\n", b); err != nil || out.Flush() != nil {
			return
		}
		if h.cfg.Node.Self().Draining { // the browser comes back to another node, and the server can stop
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}
