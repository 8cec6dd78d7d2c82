package console

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nines-go/nines/cluster"
)

const (
	logsTopic  = "nines.console.logs"
	levelTopic = "nines.console.level"
)

// The defaults of LogsOptions.
const (
	DefaultLogRecords = 2000
	DefaultLogBytes   = 1 << 20
	maxLogText        = 8 << 10 // of one record
)

// LogsOptions are the extras of NewLogs.
type LogsOptions struct {
	// Level is what is logged from; nil makes one at INFO. Give the one that the program's own handler has, so that both follow the console.
	Level *slog.LevelVar
	// Records and Bytes bound what is kept; default 2,000 and 1 MiB. The oldest go first.
	Records, Bytes int
	// Secrets are texts that must never be shown, as config.Store.Secrets returns; asked for each record. Nil: those that look like secrets
	// (passwords in URLs, attributes named password or token) are hidden all the same.
	Secrets func() []string
}

// Logs is a slog.Handler that hands records on and keeps the last of them for the console, without their secrets. Its level can be changed
// while the program runs. It is safe for concurrent use.
type Logs struct {
	core  *logCore
	next  slog.Handler
	group string      // "a.b." before the names of attributes
	attrs [][2]string // of With
}

// logCore is what a Logs and its children share.
type logCore struct {
	level          *slog.LevelVar
	records, bytes int
	secrets        func() []string

	mu     sync.Mutex
	ring   []LogRecord // oldest first from head
	head   int
	size   int
	seq    uint64
	usual  slog.Level  // that a change for a while goes back to
	revert *time.Timer // of such a change
	until  time.Time
}

// LogRecord is one record as it is kept: as text, without secrets.
type LogRecord struct {
	Seq     uint64      `json:"seq"` // of the process, without holes
	At      time.Time   `json:"at"`
	Level   string      `json:"level"`
	Message string      `json:"message"`
	Attrs   [][2]string `json:"attrs,omitempty"`
}

func (r *LogRecord) size() int {
	n := 64 + len(r.Message)
	for _, a := range r.Attrs {
		n += 32 + len(a[0]) + len(a[1])
	}
	return n
}

// NewLogs returns a handler in front of next, which gets every record from the level on that it is enabled for: let next take all levels, or
// give both one LevelVar. A nil next keeps records and writes them nowhere.
func NewLogs(next slog.Handler, opts *LogsOptions) *Logs {
	if opts == nil {
		opts = &LogsOptions{}
	}
	c := &logCore{level: opts.Level, records: opts.Records, bytes: opts.Bytes, secrets: opts.Secrets}
	if c.level == nil {
		c.level = new(slog.LevelVar)
	}
	if c.records <= 0 {
		c.records = DefaultLogRecords
	}
	if c.bytes <= 0 {
		c.bytes = DefaultLogBytes
	}
	if next == nil {
		next = slog.DiscardHandler
	}
	return &Logs{core: c, next: next}
}

// Enabled reports whether records of a level are logged.
func (l *Logs) Enabled(_ context.Context, level slog.Level) bool {
	return level >= l.core.level.Level()
}

// Handle keeps the record and hands it on.
func (l *Logs) Handle(ctx context.Context, r slog.Record) error {
	l.core.keep(l.record(r))
	if !l.next.Enabled(ctx, r.Level) {
		return nil
	}
	return l.next.Handle(ctx, r)
}

// WithAttrs returns a handler whose records have these attributes too.
func (l *Logs) WithAttrs(attrs []slog.Attr) slog.Handler {
	child := *l
	child.next = l.next.WithAttrs(attrs)
	child.attrs = slices.Clone(l.attrs)
	hide := newHider(l.core.secrets)
	for _, a := range attrs {
		flatten(&child.attrs, l.group, a, hide)
	}
	return &child
}

// WithGroup returns a handler whose later attributes have names within the group.
func (l *Logs) WithGroup(name string) slog.Handler {
	if name == "" {
		return l
	}
	child := *l
	child.next = l.next.WithGroup(name)
	child.group += name + "."
	return &child
}

func (l *Logs) record(r slog.Record) LogRecord {
	hide := newHider(l.core.secrets)
	out := LogRecord{At: r.Time, Level: r.Level.String(), Message: cut(hide.text(r.Message)), Attrs: slices.Clone(l.attrs)}
	if out.At.IsZero() {
		out.At = time.Now()
	}
	r.Attrs(func(a slog.Attr) bool {
		flatten(&out.Attrs, l.group, a, hide)
		return true
	})
	return out
}

// flatten writes an attribute as text, groups as "group.name".
func flatten(out *[][2]string, group string, a slog.Attr, hide hider) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, sub := range v.Group() {
			flatten(out, group, sub, hide)
		}
		return
	}
	if a.Key == "" && v.Any() == nil {
		return
	}
	text := v.String()
	switch v.Kind() {
	case slog.KindTime:
		text = v.Time().Format(time.RFC3339Nano)
	case slog.KindAny:
		if _, ok := v.Any().(error); !ok {
			if b, err := json.Marshal(v.Any()); err == nil {
				text = string(b)
			}
		}
	}
	*out = append(*out, [2]string{group + a.Key, cut(hide.value(a.Key, text))})
}

func cut(text string) string {
	if len(text) <= maxLogText {
		return text
	}
	return strings.ToValidUTF8(text[:maxLogText], "") + "…"
}

func (c *logCore) keep(r LogRecord) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	r.Seq = c.seq
	c.size += r.size()
	c.ring = append(c.ring, r)
	for len(c.ring)-c.head > c.records || c.size > c.bytes && len(c.ring)-c.head > 1 {
		c.size -= c.ring[c.head].size()
		c.ring[c.head] = LogRecord{}
		c.head++
	}
	if c.head > c.records {
		c.ring = append([]LogRecord(nil), c.ring[c.head:]...)
		c.head = 0
	}
}

// Records returns what is kept, oldest first: after the record with number after, of at least level, at most limit of the newest (0: all).
func (l *Logs) Records(after uint64, level slog.Level, limit int) []LogRecord {
	l.core.mu.Lock()
	kept := slices.Clone(l.core.ring[l.core.head:])
	l.core.mu.Unlock()
	out := slices.DeleteFunc(kept, func(r LogRecord) bool {
		var at slog.Level
		return r.Seq <= after || at.UnmarshalText([]byte(r.Level)) == nil && at < level
	})
	if limit > 0 && len(out) > limit {
		out = out[len(out)-limit:]
	}
	return out
}

// Level returns the level that is logged from. It makes Logs a slog.Leveler.
func (l *Logs) Level() slog.Level { return l.core.level.Level() }

// SetLevel changes the level of this process: until the next change, or, when d is positive, for d, after which it is what it was before.
func (l *Logs) SetLevel(level slog.Level, d time.Duration) {
	c := l.core
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.revert != nil {
		c.revert.Stop()
		c.revert = nil
	} else {
		c.usual = c.level.Level()
	}
	c.until = time.Time{}
	c.level.Set(level)
	if d > 0 {
		usual := c.usual
		c.until = time.Now().Add(d)
		var t *time.Timer
		t = time.AfterFunc(d, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.revert == t {
				c.level.Set(usual)
				c.revert, c.until = nil, time.Time{}
			}
		})
		c.revert = t
	}
}

// logsQuery is what consoles ask each other, and of the URL.
type logsQuery struct {
	After map[string]uint64 `json:"after,omitempty"` // by node
	Level string            `json:"level"`
	Limit int               `json:"limit"`
}

// nodeLogs is a node's answer.
type nodeLogs struct {
	Level   string      `json:"level"`           // that it logs from
	Until   *time.Time  `json:"until,omitempty"` // when it goes back to the usual one
	Usual   string      `json:"usual,omitempty"`
	Records []LogRecord `json:"records"`
}

var errNoLogs = errors.New("this node keeps no logs: set Config.Logs")

func (h *Handler) answerLogs(_ context.Context, _ string, q logsQuery) (nodeLogs, error) {
	l := h.cfg.Logs
	if l == nil {
		return nodeLogs{}, errNoLogs
	}
	level, err := parseLevel(cmp.Or(q.Level, "DEBUG"))
	if err != nil {
		return nodeLogs{}, err
	}
	out := nodeLogs{Level: l.Level().String(), Records: l.Records(q.After[h.cfg.Node.ID()], level, min(cmp.Or(max(q.Limit, 0), 200), 5000))}
	if h.cfg.Secrets != nil { // that were not known when it was logged, or not to the Logs
		hide := newHider(h.cfg.Secrets)
		for i := range out.Records {
			r := &out.Records[i]
			r.Message, r.Attrs = hide.text(r.Message), slices.Clone(r.Attrs)
			for j, a := range r.Attrs {
				r.Attrs[j][1] = hide.text(a[1])
			}
		}
	}
	l.core.mu.Lock()
	if l.core.revert != nil {
		until := l.core.until
		out.Until, out.Usual = &until, l.core.usual.String()
	}
	l.core.mu.Unlock()
	return out, nil
}

func parseLevel(text string) (level slog.Level, err error) {
	if err := level.UnmarshalText([]byte(text)); err != nil {
		return level, fmt.Errorf("%q is no level: use DEBUG, INFO, WARN or ERROR", text)
	}
	return level, nil
}

// serveLogs answers logs.json?node=&level=&limit=&after=ID:seq: the records of all nodes, or of one.
func (h *Handler) serveLogs(w http.ResponseWriter, r *http.Request) {
	v := r.URL.Query()
	q := logsQuery{Level: v.Get("level"), After: map[string]uint64{}}
	q.Limit, _ = strconv.Atoi(v.Get("limit"))
	for _, a := range v["after"] {
		if id, seq, ok := strings.Cut(a, ":"); ok {
			q.After[id], _ = strconv.ParseUint(seq, 10, 64)
		}
	}
	if q.Level != "" {
		if _, err := parseLevel(q.Level); err != nil {
			http.Error(w, "console: "+err.Error(), http.StatusBadRequest)
			return
		}
	}
	sendJSON(w, map[string]any{"nodes": ask[nodeLogs](r.Context(), h.cfg.Node, v.Get("node"), logsTopic, q)})
}

// levelChange is the body of POST level, and what consoles send each other.
type levelChange struct {
	Node    string  `json:"node"` // ID; "" is every node
	Level   string  `json:"level"`
	Minutes float64 `json:"minutes"` // 0: until the next change
}

const maxLevelMinutes = 7 * 24 * 60

func (c levelChange) parse() (slog.Level, time.Duration, error) {
	level, err := parseLevel(c.Level)
	if err == nil && (c.Minutes < 0 || c.Minutes > maxLevelMinutes) {
		err = fmt.Errorf("%v minutes are out of range: use 0 for no end, and at most %d", c.Minutes, maxLevelMinutes)
	}
	return level, time.Duration(c.Minutes * float64(time.Minute)), err
}

func (h *Handler) answerLevel(_ context.Context, from string, c levelChange) (struct{}, error) {
	var none struct{}
	if !h.cfg.AllowActions {
		return none, errors.New("actions are off on this node")
	}
	if h.cfg.Logs == nil {
		return none, errNoLogs
	}
	level, d, err := c.parse()
	if err != nil {
		return none, err
	}
	was := h.cfg.Logs.Level()
	h.cfg.Logs.SetLevel(level, d)
	slog.New(h.cfg.Logs).Log(context.Background(), max(level, slog.LevelInfo), "log level changed", "was", was, "is", level, "for", d, "by", from)
	return none, nil
}

// serveLevel changes the log level and answers {"results": {node ID: error or ""}}.
func (h *Handler) serveLevel(w http.ResponseWriter, r *http.Request) {
	var c levelChange
	if !h.accept(w, r, &c) {
		return
	}
	if _, _, err := c.parse(); err != nil {
		http.Error(w, "console: "+err.Error(), http.StatusBadRequest)
		return
	}
	results := map[string]string{}
	for id, a := range ask[struct{}](r.Context(), h.cfg.Node, c.Node, levelTopic, c) {
		results[id] = a.Error
	}
	sendJSON(w, map[string]any{"results": results})
}

// answer is what one node said.
type answer[A any] struct {
	Error string `json:"error,omitempty"`
	Value *A     `json:"value,omitempty"`
}

// ask asks every node, or the one named, at most timeout.
func ask[A, Q any](ctx context.Context, n *cluster.Node, only, topic string, q Q) map[string]answer[A] {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return askWithin[A](ctx, n, only, topic, q)
}

func askWithin[A, Q any](ctx context.Context, n *cluster.Node, only, topic string, q Q) map[string]answer[A] {
	ids := []string{only}
	if only == "" {
		ids = n.Alive()
	}
	if len(ids) == 0 {
		ids = []string{n.ID()}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	answers := map[string]answer[A]{}
	for _, id := range ids {
		wg.Go(func() {
			var a answer[A]
			v, err := cluster.RequestJSON[A](ctx, n, id, topic, q)
			var remote *cluster.RemoteError
			switch {
			case errors.As(err, &remote):
				a.Error = remote.Text
			case err != nil:
				a.Error = err.Error()
			default:
				a.Value = &v
			}
			mu.Lock()
			answers[id] = a
			mu.Unlock()
		})
	}
	wg.Wait()
	return answers
}
