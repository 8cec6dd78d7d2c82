package console

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Health serves, below any prefix: /livez, 200 while the process answers; /readyz, 200 while the Node and every card are fit to serve, else
// 503 with the reasons; /healthz, the same with ?verbose naming each check. Warnings do not turn it off. It needs no authorization and tells
// no figures.
func (h *Handler) Health() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		switch _, last, _ := cutLast(strings.TrimSuffix(r.URL.Path, "/")); last {
		case "livez":
			fmt.Fprintln(w, "ok")
		case "readyz":
			h.ready(w, r, false)
		case "healthz":
			h.ready(w, r, r.URL.Query().Has("verbose"))
		default:
			http.NotFound(w, r)
		}
	})
}

func (h *Handler) ready(w http.ResponseWriter, r *http.Request, verbose bool) {
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	type line struct{ name, level, text string }
	var lines []line
	if err := h.cfg.Node.Check(ctx); err != nil {
		level, text, _ := judge(err)
		lines = append(lines, line{"cluster", level, text})
	} else {
		lines = append(lines, line{"cluster", "green", "ok"})
	}
	for _, c := range h.local(ctx) {
		if c.Error == "" {
			c.Error = "ok"
		}
		lines = append(lines, line{c.Name, c.Level, c.Error})
	}
	code := http.StatusOK
	for _, l := range lines {
		if l.level == "red" {
			code = http.StatusServiceUnavailable
		}
	}
	if code != http.StatusOK {
		w.Header().Set("Retry-After", fmt.Sprint(int(timeout/time.Second)))
	}
	w.WriteHeader(code)
	if code == http.StatusOK && !verbose {
		fmt.Fprintln(w, "ok")
		return
	}
	for _, l := range lines {
		if verbose || l.level == "red" {
			fmt.Fprintf(w, "%s: %s\n", l.name, l.text)
		}
	}
}
