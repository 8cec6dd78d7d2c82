package console

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strings"
	"time"
)

const (
	bundleTopic   = "nines.console.bundle"
	bundleTimeout = 20 * time.Second
	maxBundleFile = 8 << 20
)

// bundleOrder is the body of POST bundle, and what consoles ask each other.
type bundleOrder struct {
	Node string `json:"node"` // ID; "" is every node
}

func (h *Handler) answerBundle(ctx context.Context, _ string, _ bundleOrder) (map[string][]byte, error) {
	if !h.cfg.AllowActions {
		return nil, errors.New("actions are off on this node, and so is the bundle")
	}
	return h.files(ctx), nil
}

// files is this node's part of the bundle, without secrets.
func (h *Handler) files(ctx context.Context) map[string][]byte {
	files := map[string][]byte{}
	put := func(name string, v any) {
		b, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			b = []byte(err.Error())
		}
		files[name] = b
	}
	put("about.json", h.about())
	put("status.json", h.cfg.Node.Status())
	put("stats.json", h.cfg.Node.Stats())
	put("cards.json", h.local(ctx))
	events, _ := h.answerHistory(ctx, "", struct{}{})
	put("events.json", events)
	if h.cfg.Settings != nil {
		put("settings.json", h.ownSettings())
	}
	if h.cfg.Logs != nil {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		for _, r := range h.cfg.Logs.Records(0, -1<<10, 0) {
			_ = enc.Encode(r)
		}
		files["logs.jsonl"] = b.Bytes()
	}
	var stacks bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&stacks, 1); err == nil {
		files["goroutines.txt"] = stacks.Bytes()
	}
	if h.cfg.BundleFiles != nil {
		for name, b := range h.cfg.BundleFiles(ctx) {
			files["extra/"+fileName(name)] = b
		}
	}
	hide := newHider(h.cfg.Secrets)
	for name, b := range files {
		if len(b) > maxBundleFile {
			b = append(b[:maxBundleFile:maxBundleFile], "\n(cut off)\n"...)
		}
		files[name] = hide.file(name, b)
	}
	return files
}

// about is what the process is and how it is.
func (h *Handler) about() map[string]any {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	self := h.cfg.Node.Self()
	host, _ := os.Hostname()
	about := map[string]any{
		"at": time.Now(), "id": self.ID, "name": self.Name, "address": self.Addr, "version": self.Version, "schema": self.Schema, "started": self.Started,
		"tags": self.Tags, "host": host, "pid": os.Getpid(), "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH, "cpus": runtime.NumCPU(),
		"gomaxprocs": runtime.GOMAXPROCS(0), "goroutines": runtime.NumGoroutine(),
		"memory": map[string]any{"heap_bytes": mem.HeapAlloc, "system_bytes": mem.Sys, "gc_runs": mem.NumGC, "gc_pause_total": time.Duration(mem.PauseTotalNs).String()},
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		modules := map[string]string{}
		for _, m := range info.Deps {
			modules[m.Path] = m.Version
		}
		about["program"], about["modules"] = info.Path, modules
		for _, s := range info.Settings {
			if strings.HasPrefix(s.Key, "vcs.") {
				about[s.Key] = s.Value
			}
		}
	}
	return about
}

// serveBundle answers a zip with a folder for each node.
func (h *Handler) serveBundle(w http.ResponseWriter, r *http.Request) {
	var order bundleOrder
	if !h.accept(w, r, &order) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), bundleTimeout)
	defer cancel()
	n := h.cfg.Node
	answers := askWithin[map[string][]byte](ctx, n, order.Node, bundleTopic, order)
	at := time.Now().UTC()
	top := "bundle-" + at.Format("20060102-150405") + "Z"
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	add := func(name string, content []byte) error {
		f, err := z.CreateHeader(&zip.FileHeader{Name: top + "/" + name, Method: zip.Deflate, Modified: at})
		if err == nil {
			_, err = f.Write(content)
		}
		return err
	}
	names := map[string]string{}
	for _, m := range n.Members() {
		names[m.ID] = m.Name
	}
	var missing strings.Builder
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(answers)) {
		folder := fileName(names[id]) + "-" + id[max(len(id)-8, 0):]
		a := answers[id]
		if a.Value == nil {
			fmt.Fprintf(&missing, "%s %s: %s\n", names[id], id, a.Error)
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(*a.Value)) {
			errs = append(errs, add(folder+"/"+name, (*a.Value)[name]))
		}
	}
	for _, m := range n.Members() {
		if _, asked := answers[m.ID]; !asked && order.Node == "" {
			fmt.Fprintf(&missing, "%s %s: %s since %s\n", m.Name, m.ID, m.State, m.Since.UTC().Format(time.RFC3339))
		}
	}
	if missing.String() != "" {
		errs = append(errs, add("missing.txt", []byte(newHider(h.cfg.Secrets).text(missing.String()))))
	}
	doc, err := json.MarshalIndent(h.status(ctx), "", "  ")
	errs = append(errs, err, add("status.json", newHider(h.cfg.Secrets).file("status.json", doc)), z.Close())
	if err := errors.Join(errs...); err != nil {
		http.Error(w, "console: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/zip")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Disposition", `attachment; filename="`+top+`.zip"`)
	_, _ = w.Write(b.Bytes())
}

var noFileName = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// fileName is a name without path or surprise.
func fileName(s string) string {
	s = strings.Trim(noFileName.ReplaceAllString(s, "_"), "._")
	if s == "" {
		return "node"
	}
	return s
}
