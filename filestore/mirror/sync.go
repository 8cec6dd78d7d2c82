package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nines-go/nines/filestore"
)

// prepare makes the folders of Dir and, the first time, removes what the process before has left.
func (m *Mirror) prepare() error {
	m.preparing.Lock()
	defer m.preparing.Unlock()
	for _, dir := range []string{stagingDir, versionsDir} {
		if err := os.MkdirAll(filepath.Join(m.cfg.Dir, dir), 0o755); err != nil {
			return err
		}
	}
	if m.swept {
		return nil
	}
	m.swept = true
	m.mu.Lock()
	if !m.loaded {
		m.loadLocked()
	}
	have := maps.Clone(m.have)
	m.mu.Unlock()
	m.sweep(have)
	return nil
}

// wanted is what the store says of one extension.
type wanted struct {
	manifest
	enabled bool
}

// sync looks into the store and makes Dir like it. Its error is one of the store or of Dir; what is wrong with a single extension is kept for Check.
func (m *Mirror) sync(ctx context.Context) error {
	m.syncing.Lock()
	defer m.syncing.Unlock()
	err := m.syncAll(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.Syncs++
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		m.stats.Failures++
		if m.fault == nil {
			m.cfg.Logger.Warn("extensions cannot be followed", "err", err)
		}
	} else {
		m.stats.LastSync = time.Now()
	}
	m.fault = err
	return err
}

func (m *Mirror) syncAll(ctx context.Context) error {
	if err := m.prepare(); err != nil {
		return err
	}
	m.mu.Lock()
	before := maps.Clone(m.have)
	m.mu.Unlock()
	want, failed, err := m.look(ctx)
	if err != nil {
		return err
	}
	after := map[string]Extension{}
	for id, w := range want {
		e, err := m.bring(ctx, w, before[id])
		if err != nil {
			failed[id] = err
			if e, ok := before[id]; ok { // the version before stays in use
				after[id] = e
			}
			continue
		}
		after[id] = e
	}
	for id := range failed {
		if e, ok := before[id]; ok && want[id].ID == "" {
			after[id] = e
		}
	}
	return m.adopt(before, after, failed)
}

// look lists what the store says. failed are those whose manifest cannot be read.
func (m *Mirror) look(ctx context.Context) (want map[string]wanted, failed map[string]error, err error) {
	prefix := m.cfg.Prefix + "/"
	manifests, enabled := map[string]string{}, map[string]bool{}
	for o, err := range m.cfg.Store.List(ctx, prefix, "") {
		if err != nil {
			return nil, nil, err
		}
		id, name, _ := strings.Cut(strings.TrimPrefix(o.Key, prefix), "/")
		switch {
		case !validID.MatchString(id):
		case name == manifestName:
			manifests[id] = o.Version
		case strings.HasPrefix(name, enabledName):
			enabled[id+"/"+strings.TrimPrefix(name, enabledName)] = true
		}
	}
	want, failed = map[string]wanted{}, map[string]error{}
	known := map[string]cachedManifest{}
	for id, version := range manifests {
		c, ok := m.known[id]
		if !ok || c.version != version {
			got, o, err := m.read(ctx, id)
			if errors.Is(err, fs.ErrNotExist) { // removed meanwhile
				continue
			}
			if err != nil && ctx.Err() != nil {
				return nil, nil, ctx.Err()
			}
			if err != nil {
				failed[id] = err
				continue
			}
			c = cachedManifest{o.Version, got}
		}
		known[id] = c
		want[id] = wanted{c.manifest, enabled[id+"/"+c.Lineage]}
	}
	m.known = known
	return want, failed, nil
}

func folderName(w manifest) string { return w.ID + "@" + w.SHA256[:32] }

// bring sees that the files of an extension are here, and returns it.
func (m *Mirror) bring(ctx context.Context, w wanted, now Extension) (Extension, error) {
	e := Extension{ID: w.ID, Version: w.Version, SHA256: w.SHA256, Enabled: w.enabled, Installed: w.Installed, Path: filepath.Join(m.versions(), folderName(w.manifest))}
	if err := m.verify(w.ID, w.Version, w.SHA256, w.Signature); err != nil {
		return Extension{}, err
	}
	if fi, err := os.Stat(e.Path); err != nil || !fi.IsDir() {
		if err := m.fetch(ctx, w.manifest, e.Path); err != nil {
			return Extension{}, err
		}
	}
	if now.Path != e.Path || !m.linked(e) {
		if err := m.link(e); err != nil {
			return Extension{}, err
		}
	}
	return e, nil
}

// fetch brings a bundle here and unpacks it beside, and gives the folder its name when all of it is there.
func (m *Mirror) fetch(ctx context.Context, w manifest, target string) (err error) {
	m.count(func(s *Stats) { s.Fetches++ })
	defer func() {
		if err != nil {
			m.count(func(s *Stats) { s.Failures++ })
			m.cfg.Logger.Warn("extension cannot be brought here", "id", w.ID, "version", w.Version, "err", err)
		}
	}()
	r, _, err := m.cfg.Store.Get(ctx, m.key(w.ID, bundleName(w.SHA256)), nil)
	if err != nil {
		return err
	}
	defer r.Close()
	f, sum, _, err := m.spool(ctx, r)
	if err != nil {
		return err
	}
	defer func() {
		_ = f.Close()
		_ = os.Remove(f.Name())
	}()
	if sum != w.SHA256 {
		return fmt.Errorf("%w: its bundle has the SHA-256 %s instead of %s", filestore.ErrCorrupt, sum, w.SHA256)
	}
	staging, err := os.MkdirTemp(filepath.Join(m.cfg.Dir, stagingDir), "unpack-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(staging)
	if err := os.Chmod(staging, 0o755); err != nil {
		return err
	}
	if err := unpack(ctx, f, staging, limits{m.cfg.MaxSize, m.cfg.MaxFiles}); err != nil {
		return err
	}
	if err := os.Rename(staging, target); err != nil {
		return err
	}
	m.cfg.Logger.Info("extension is here", "id", w.ID, "version", w.Version)
	return syncPath(m.versions())
}

func (m *Mirror) count(fn func(*Stats)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fn(&m.stats)
}

func syncPath(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (m *Mirror) linked(e Extension) bool {
	target, err := os.Readlink(filepath.Join(m.cfg.Dir, e.ID))
	return err == nil && target == filepath.Join(versionsDir, filepath.Base(e.Path))
}

// link lets the ID's name lead to a version, in one step.
func (m *Mirror) link(e Extension) error {
	name := filepath.Join(m.cfg.Dir, stagingDir, "link-"+e.ID)
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(filepath.Join(versionsDir, filepath.Base(e.Path)), name); err != nil {
		return err
	}
	return errors.Join(os.Rename(name, filepath.Join(m.cfg.Dir, e.ID)), syncPath(m.cfg.Dir))
}

// adopt makes what was brought the present state.
func (m *Mirror) adopt(before, after map[string]Extension, failed map[string]error) error {
	var errs []error
	for id := range before {
		if _, ok := after[id]; !ok {
			if err := os.Remove(filepath.Join(m.cfg.Dir, id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	changed := !maps.Equal(before, after)
	if changed {
		errs = append(errs, m.save(after))
	}
	m.mu.Lock()
	for _, e := range before {
		if after[e.ID].Path != e.Path {
			m.old[filepath.Base(e.Path)] = time.Now()
		}
	}
	for _, e := range after {
		delete(m.old, filepath.Base(e.Path))
	}
	var gone []string
	for name, since := range m.old {
		if time.Since(since) > grace {
			gone = append(gone, name)
			delete(m.old, name)
		}
	}
	m.have, m.failed = after, failed
	if changed {
		m.changedLocked()
	}
	m.mu.Unlock()
	for _, name := range gone {
		errs = append(errs, os.RemoveAll(filepath.Join(m.versions(), name)))
	}
	return errors.Join(errs...)
}

// save keeps what the node has for its next start.
func (m *Mirror) save(have map[string]Extension) error {
	list := slices.Collect(maps.Values(have))
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Join(m.cfg.Dir, stagingDir), "state-")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), filepath.Join(m.cfg.Dir, stateFile))
}

// sweep removes what a process that died, or the one before, has left: half of a folder, old versions, and links that lead nowhere.
func (m *Mirror) sweep(have map[string]Extension) {
	keep := map[string]bool{}
	for _, e := range have {
		keep[filepath.Base(e.Path)] = true
	}
	each := func(dir string, fn func(name string)) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return
		}
		for _, e := range entries {
			fn(e.Name())
		}
	}
	each(filepath.Join(m.cfg.Dir, stagingDir), func(name string) { _ = os.RemoveAll(filepath.Join(m.cfg.Dir, stagingDir, name)) })
	each(m.versions(), func(name string) {
		if !keep[name] {
			_ = os.RemoveAll(filepath.Join(m.versions(), name))
		}
	})
	each(m.cfg.Dir, func(name string) {
		if _, ok := have[name]; ok || strings.HasPrefix(name, ".") {
			return
		}
		if fi, err := os.Lstat(filepath.Join(m.cfg.Dir, name)); err == nil && fi.Mode()&fs.ModeSymlink != 0 {
			_ = os.Remove(filepath.Join(m.cfg.Dir, name))
		}
	})
}
