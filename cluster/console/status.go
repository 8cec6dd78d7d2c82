package console

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
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
	Logs         bool      `json:"logs"`     // the answering node keeps logs
	Settings     bool      `json:"settings"` // and shows settings
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
	LogLevel      string            `json:"log_level,omitempty"`
	Ready         *bool             `json:"ready,omitempty"` // as it says itself; absent when it does not answer
	Error         string            `json:"error,omitempty"` // why it did not answer
}

type reason struct {
	Code   string `json:"code"`
	Level  string `json:"level"`
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
	Ask   string `json:"ask,omitempty"`
}

// report is what a node tells other consoles of itself.
type report struct {
	Cards    []card            `json:"cards"`
	Reasons  []reason          `json:"reasons"` // about itself
	Sees     map[string]string `json:"sees"`    // the states of the others
	Ready    bool              `json:"ready"`   // nothing forbids it to serve
	LogLevel string            `json:"log_level,omitempty"`
}

// local runs this node's checks and reads its figures.
func (h *Handler) local(ctx context.Context) []card {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cards := make([]card, len(h.cfg.Cards))
	hide := newHider(h.cfg.Secrets)
	var wg sync.WaitGroup
	for i, c := range h.cfg.Cards {
		wg.Go(func() {
			out := card{Name: c.Name, Level: "green", Stats: json.RawMessage("null")}
			err := h.safely("card "+c.Name, func() error {
				if c.Stats != nil {
					out.Stats = encode(c.Stats())
				}
				if c.Check != nil {
					return c.Check(ctx)
				}
				return nil
			})
			if err != nil {
				out.Level, out.Error, out.Remedy = judge(err)
				out.Error = hide.text(out.Error)
			}
			for _, a := range c.Actions {
				out.Actions = append(out.Actions, action{a.Name, a.Every, a.Ask})
			}
			cards[i] = out
		})
	}
	wg.Wait()
	return cards
}

// panicked is what a card's or an action's panic becomes: a page must not end the program that it is to show.
type panicked struct{ text string }

func (p *panicked) Error() string  { return p.text }
func (p *panicked) Remedy() string { return "look at the log of that node, and mend the program" }

// safely runs the program's own code.
func (h *Handler) safely(what string, fn func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			h.log.Error("the program's part of the console panicked", "part", what, "panic", v, "stack", string(debug.Stack()))
			err = &panicked{fmt.Sprintf("panicked: %v", v)}
		}
	}()
	return fn()
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

func (h *Handler) answerStatus(ctx context.Context, _ string, _ struct{}) (report, error) {
	return h.report(ctx), nil
}

func (h *Handler) report(ctx context.Context) report {
	n := h.cfg.Node
	out := report{Cards: h.local(ctx), Reasons: []reason{}, Sees: map[string]string{}}
	for _, m := range n.Status().Members {
		if m.Member.ID == n.ID() {
			out.Reasons = member(m).Reasons
		} else {
			out.Sees[m.Member.ID] = string(m.Member.State)
		}
	}
	if h.cfg.Logs != nil {
		out.LogLevel = h.cfg.Logs.Level().String()
	}
	out.Ready = !slices.ContainsFunc(out.Cards, func(c card) bool { return c.Level == "red" })
	if err := n.Check(ctx); err != nil {
		level, _, _ := judge(err)
		out.Ready = out.Ready && level != "red"
	}
	return out
}

// shared is a status that several viewers of the same moment share.
type shared struct {
	mu      sync.Mutex
	flight  chan struct{} // closed when doc is there
	doc     document
	made    time.Time
	pending bool
}

const freshFor = 400 * time.Millisecond

// recent is status, at most freshFor old.
func (h *Handler) recent(ctx context.Context) (document, error) {
	s := &h.doc
	for {
		s.mu.Lock()
		if time.Since(s.made) < freshFor {
			defer s.mu.Unlock()
			return s.doc, nil
		}
		if !s.pending {
			s.pending, s.flight = true, make(chan struct{})
			s.mu.Unlock()
			doc := h.status(context.WithoutCancel(ctx)) // others wait for it
			s.mu.Lock()
			s.doc, s.made, s.pending = doc, time.Now(), false
			close(s.flight)
			s.mu.Unlock()
			return doc, nil
		}
		flight := s.flight
		s.mu.Unlock()
		select {
		case <-flight:
		case <-ctx.Done():
			return document{}, context.Cause(ctx)
		}
	}
}

// status asks every node about itself and puts that beside what this node knows of the members.
func (h *Handler) status(ctx context.Context) document {
	n := h.cfg.Node
	answers := map[string]answer[report]{}
	var own report
	var wg sync.WaitGroup
	wg.Go(func() { own = h.report(ctx) })
	wg.Go(func() {
		if len(n.Alive()) > 1 {
			answers = ask[report](ctx, n, "", statusTopic, struct{}{})
		}
	})
	wg.Wait()

	self := n.ID()
	answers[self] = answer[report]{Value: &own}
	doc := document{
		Schema: 1, At: time.Now(), Node: self, AllowActions: h.cfg.AllowActions, Logs: h.cfg.Logs != nil, Settings: h.cfg.Settings != nil, Nodes: []node{},
	}
	for _, m := range n.Status().Members {
		out := member(m)
		out.Self = m.Member.ID == self
		if a, asked := answers[m.Member.ID]; asked {
			out.take(a)
		}
		doc.Nodes = append(doc.Nodes, out)
	}
	disagree(doc.Nodes, answers)
	gather(doc.Nodes)
	slices.SortStableFunc(doc.Nodes, func(a, b node) int {
		return strings.Compare(a.Name+"\x00"+a.ID, b.Name+"\x00"+b.ID)
	})
	doc.Verdict = conclude(doc.Nodes)
	return doc
}

// take puts what a node says of itself beside what is known of it here.
func (n *node) take(a answer[report]) {
	if a.Value == nil {
		n.Error = a.Error
		return
	}
	n.LogLevel, n.Ready = a.Value.LogLevel, &a.Value.Ready
	if a.Value.Cards != nil {
		n.Cards = a.Value.Cards
	}
	for _, r := range a.Value.Reasons {
		if !slices.Contains(n.Reasons, r) {
			n.add(r)
		}
	}
	if level := n.worst(); rank[level] > rank[n.Level] {
		n.Level = level
	}
}

// common are findings about something outside, which every node is likely to have: they stand once, with the answering node.
var common = []string{cluster.CodeUnreachable, cluster.CodeDiscovery, cluster.CodeSeed}

// subject is what a finding is about, without times and details that differ from node to node.
func subject(r reason) string {
	about, _, _ := strings.Cut(r.Text, " since ")
	about, _, _ = strings.Cut(about, ": ")
	return r.Code + " " + about
}

// gather takes what several nodes found about the same thing from all but the answering one.
func gather(nodes []node) {
	at := slices.IndexFunc(nodes, func(n node) bool { return n.Self })
	if at < 0 {
		return
	}
	self := &nodes[at]
	for i := range self.Reasons {
		r := &self.Reasons[i]
		if !slices.Contains(common, r.Code) {
			continue
		}
		what := subject(*r)
		var also []string
		for j := range nodes {
			if n := &nodes[j]; j != at {
				before := len(n.Reasons)
				n.Reasons = slices.DeleteFunc(n.Reasons, func(r reason) bool { return subject(r) == what })
				if len(n.Reasons) < before {
					also = append(also, cmp.Or(n.Name, n.ID))
					n.Level = n.worst()
				}
			}
		}
		if len(also) > 0 {
			r.Text += fmt.Sprintf(" (%s too)", several(also))
		}
	}
}

// several names up to three nodes, and counts more.
func several(names []string) string {
	if len(names) > 3 {
		return fmt.Sprintf("so find %d other nodes", len(names))
	}
	return "so find " + strings.Join(names, ", ")
}

// worst is the level of what stands with the node, and of its cards.
func (n *node) worst() string {
	level := "green"
	for _, c := range n.Cards {
		if rank[c.Level] > rank[level] {
			level = c.Level
		}
	}
	for _, r := range n.Reasons {
		if rank[r.Level] > rank[level] {
			level = r.Level
		}
	}
	return level
}

func (n *node) add(r reason) {
	n.Reasons = append(n.Reasons, r)
	if rank[r.Level] > rank[n.Level] {
		n.Level = r.Level
	}
}

var rank = map[string]int{"green": 0, "amber": 1, "red": 2}

// disagree says where a member is not seen by all as the answering node sees it: a cut, most often.
func disagree(nodes []node, answers map[string]answer[report]) {
	names := map[string]string{}
	for _, n := range nodes {
		names[n.ID] = cmp.Or(n.Name, n.ID)
	}
	for i := range nodes {
		n := &nodes[i]
		var by []string
		state := ""
		for id, a := range answers {
			if a.Value == nil || id == n.ID {
				continue
			}
			switch sees := a.Value.Sees[n.ID]; sees {
			case "suspect", "failed", "dead":
				if n.State == "alive" || n.State == "draining" {
					by, state = append(by, names[id]), sees
				}
			}
		}
		if len(by) > 0 {
			slices.Sort(by)
			n.add(reason{
				Code: "unlike", Level: "amber", Text: fmt.Sprintf("%s is %s for %s", names[n.ID], state, strings.Join(by, ", ")),
				Remedy: "let every host reach every other over TCP and UDP; if it has just come back, wait a second",
			})
		}
	}
}

func member(m cluster.MemberStatus) node {
	out := node{
		ID: m.Member.ID, Name: m.Member.Name, Addr: m.Member.Addr, Version: m.Member.Version, SchemaVersion: m.Member.Schema,
		State: fmt.Sprint(m.Member.State), Level: fmt.Sprint(m.Level), Started: m.Member.Started, LastSeen: m.Member.LastSeen,
		ClockOffset: m.Member.ClockOffset.Seconds(), Draining: m.Member.Draining, Tags: m.Member.Tags, Cards: []card{}, Reasons: []reason{},
	}
	for _, r := range m.Reasons {
		out.Reasons = append(out.Reasons, reason{r.Code, r.Level.String(), r.Text, r.Remedy})
	}
	return out
}

// standing are findings that stay as long as the configuration does: any other says more.
var standing = []string{cluster.CodeKeyless, cluster.CodeAddress}

// conclude is the one line at the top: the worst that any node says, with its remedy.
func conclude(nodes []node) verdict {
	present, found, weight := 0, 0, 0
	worst := verdict{Level: "green"}
	note := func(level, code, text, remedy string) {
		w := 2 * rank[level]
		if w > 0 {
			found++
		}
		if slices.Contains(standing, code) {
			w--
		}
		if w <= weight {
			return
		}
		if remedy != "" {
			text += ": " + remedy
		}
		worst, weight = verdict{level, text}, w
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
			note(r.Level, r.Code, text, r.Remedy)
		}
		for _, c := range n.Cards {
			note(c.Level, "", name+", "+c.Name+": "+c.Error, c.Remedy)
		}
		if n.Error != "" {
			note("amber", "", name+" does not answer the console: "+n.Error, "")
		}
	}
	switch {
	case worst.Level == "green":
		worst.Text = fmt.Sprintf("%d of %d nodes are well", present, len(nodes))
	case found > 1:
		worst.Text += fmt.Sprintf(" (and %d more)", found-1)
	}
	return worst
}

func (h *Handler) serveStatus(w http.ResponseWriter, r *http.Request) {
	sendJSON(w, h.status(r.Context()))
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
		doc, err := h.recent(r.Context())
		if err != nil {
			return
		}
		b, err := json.Marshal(doc)
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
