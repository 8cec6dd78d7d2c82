package mirror

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/nines-go/nines/filestore"
)

const (
	manifestName = "manifest.json"
	enabledName  = "enabled-" // and the lineage
	maxManifest  = 64 << 10
	conflicts    = 5
)

// manifest says which version of an extension is installed. To put it is to install.
type manifest struct {
	ID        string    `json:"id"`
	Version   string    `json:"version"`
	SHA256    string    `json:"sha256"`
	Size      int64     `json:"size"`
	Signature []byte    `json:"signature,omitempty"`
	Installed time.Time `json:"installed"`
	// Lineage is the same from one installation to the next removal: that an extension is enabled counts for one lineage.
	Lineage string `json:"lineage"`
}

// cachedManifest spares reading a manifest that is the same.
type cachedManifest struct {
	version string // of the object
	manifest
}

// InstallOptions are the extras of Install; nil is the zero value.
type InstallOptions struct {
	Signature []byte // by Sign; needed when Config.Keys is set
}

// Sign returns the signature of a bundle that Config.Keys asks for: sum is the SHA-256 of the bundle.
func Sign(key ed25519.PrivateKey, id, version string, sum [sha256.Size]byte) []byte {
	return ed25519.Sign(key, message(id, version, hex.EncodeToString(sum[:])))
}

func message(id, version, sum string) []byte {
	return fmt.Appendf(nil, "nines extension\n%q\n%q\n%s\n", id, version, sum)
}

func (m *Mirror) verify(id, version, sum string, signature []byte) error {
	if len(m.cfg.Keys) == 0 {
		return nil
	}
	for _, key := range m.cfg.Keys {
		if ed25519.Verify(key, message(id, version, sum), signature) {
			return nil
		}
	}
	return fmt.Errorf("%w of extension %s: none of Config.Keys has signed version %q with this content", ErrSignature, id, version)
}

func (m *Mirror) begin(id string) error {
	if m.life.Closed() {
		return ErrClosed
	}
	if !validID.MatchString(id) {
		return fmt.Errorf("mirror: the ID %q: use 1 to 64 of a-z, 0-9, dot, underline and hyphen, the first a letter or digit", id)
	}
	return nil
}

func (m *Mirror) key(id, name string) string { return m.cfg.Prefix + "/" + id + "/" + name }

func bundleName(sum string) string { return sum + ".tar.gz" }

// Install brings a bundle to all nodes: a new extension, which is then disabled, or another version of one that is there, which stays as it is. It
// is unpacked here first, so that a bad one is refused before anything changes. When Install returns, the store has it and this node too;
// the others follow.
func (m *Mirror) Install(ctx context.Context, id, version string, bundle io.Reader, opts *InstallOptions) (Extension, error) {
	if err := m.begin(id); err != nil {
		return Extension{}, err
	}
	if len(version) > 128 || strings.ContainsFunc(version, unicode.IsControl) {
		return Extension{}, fmt.Errorf("mirror: the version %q: use at most 128 bytes without control characters", version)
	}
	if opts == nil {
		opts = &InstallOptions{}
	}
	if err := m.install(ctx, id, version, bundle, opts); err != nil {
		return Extension{}, fmt.Errorf("mirror: install %s: %w", id, err)
	}
	m.tellOthers(ctx)
	if err := m.sync(ctx); err != nil {
		return Extension{}, fmt.Errorf("mirror: install %s: it is in the store, and not yet here: %w", id, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.failed[id]; err != nil {
		return Extension{}, fmt.Errorf("mirror: install %s: it is in the store, and not yet here: %w", id, err)
	}
	return m.have[id], nil
}

func (m *Mirror) install(ctx context.Context, id, version string, bundle io.Reader, opts *InstallOptions) error {
	if err := m.prepare(); err != nil {
		return err
	}
	f, sum, size, err := m.spool(ctx, bundle)
	if err != nil {
		return err
	}
	defer func() {
		_ = f.Close()
		_ = os.Remove(f.Name())
	}()
	if err := m.verify(id, version, sum, opts.Signature); err != nil {
		return err
	}
	trial, err := os.MkdirTemp(filepath.Join(m.cfg.Dir, stagingDir), "trial-")
	if err != nil {
		return err
	}
	err = errors.Join(unpack(ctx, f, trial, limits{m.cfg.MaxSize, m.cfg.MaxFiles}), os.RemoveAll(trial))
	if err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	raw, err := hex.DecodeString(sum)
	if err != nil {
		return err
	}
	if _, err := m.cfg.Store.Put(ctx, m.key(id, bundleName(sum)), f, &filestore.PutOptions{Size: size, SHA256: raw, ContentType: "application/gzip"}); err != nil {
		return err
	}
	next := manifest{ID: id, Version: version, SHA256: sum, Size: size, Signature: opts.Signature, Installed: time.Now().UTC()}
	if err := m.publish(ctx, next); err != nil {
		return err
	}
	m.tidy(ctx, id)
	return nil
}

// spool writes a bundle to a file.
func (m *Mirror) spool(ctx context.Context, r io.Reader) (f *os.File, sum string, size int64, err error) {
	if f, err = os.CreateTemp(filepath.Join(m.cfg.Dir, stagingDir), "bundle-"); err != nil {
		return nil, "", 0, err
	}
	h := sha256.New()
	size, err = io.Copy(io.MultiWriter(f, h), io.LimitReader(ctxReader{ctx, r}, m.cfg.MaxBundle+1))
	if err == nil && size > m.cfg.MaxBundle {
		err = fmt.Errorf("%w: it has more than %d bytes (Config.MaxBundle)", ErrBundle, m.cfg.MaxBundle)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return nil, "", 0, errors.Join(err, f.Close())
	}
	return f, hex.EncodeToString(h.Sum(nil)), size, nil
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r ctxReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}

// publish puts the manifest: the lineage of the present one goes on.
func (m *Mirror) publish(ctx context.Context, next manifest) error {
	caps := m.cfg.Store.Capabilities()
	for range conflicts {
		var opts filestore.PutOptions
		now, o, err := m.read(ctx, next.ID)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			next.Lineage = rand.Text()
			opts.IfAbsent = caps.IfAbsent
		case err != nil:
			return err
		default:
			next.Lineage = now.Lineage
			if caps.IfMatch {
				opts.IfMatch = o.Version
			}
		}
		b, err := json.Marshal(next)
		if err != nil {
			return err
		}
		opts.ContentType = "application/json"
		_, err = m.cfg.Store.WriteFile(ctx, m.key(next.ID, manifestName), b, &opts)
		if !errors.Is(err, fs.ErrExist) && !errors.Is(err, filestore.ErrPrecondition) {
			return err
		}
	}
	return ErrConflict
}

// read returns the manifest of an extension and its object.
func (m *Mirror) read(ctx context.Context, id string) (manifest, filestore.Object, error) {
	r, o, err := m.cfg.Store.Get(ctx, m.key(id, manifestName), nil)
	if err != nil {
		return manifest{}, o, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxManifest))
	if err != nil {
		return manifest{}, o, err
	}
	var got manifest
	if err := json.Unmarshal(b, &got); err != nil {
		return manifest{}, o, fmt.Errorf("its manifest is damaged: %w", err)
	}
	if raw, err := hex.DecodeString(got.SHA256); got.ID != id || err != nil || len(raw) != sha256.Size || got.Lineage == "" {
		return manifest{}, o, errors.New("its manifest is damaged")
	}
	return got, o, nil
}

// tidy removes what belongs to no present version. What it leaves is removed the next time.
func (m *Mirror) tidy(ctx context.Context, id string) {
	now, _, err := m.read(ctx, id)
	if err != nil {
		return
	}
	keep := []string{manifestName, bundleName(now.SHA256), enabledName + now.Lineage}
	for o, err := range m.cfg.Store.List(ctx, m.key(id, ""), "") {
		if err != nil {
			return
		}
		if !slices.Contains(keep, strings.TrimPrefix(o.Key, m.key(id, ""))) && time.Since(o.Modified) > grace {
			_ = m.cfg.Store.Delete(ctx, o.Key)
		}
	}
}

// Remove takes an extension from all nodes. fs.ErrNotExist when it is not installed.
func (m *Mirror) Remove(ctx context.Context, id string) error {
	if err := m.begin(id); err != nil {
		return err
	}
	if err := m.cfg.Store.Delete(ctx, m.key(id, manifestName)); err != nil { // from here on it is not installed
		return fmt.Errorf("mirror: remove %s: %w", id, err)
	}
	_, err := m.cfg.Store.RemovePrefix(ctx, m.cfg.Prefix+"/"+id)
	m.tellOthers(ctx)
	if err = errors.Join(err, m.sync(ctx)); err != nil {
		return fmt.Errorf("mirror: remove %s: it is removed, but not all of it: %w", id, err)
	}
	return nil
}

// SetEnabled says for all nodes whether an extension is to be used. fs.ErrNotExist when it is not installed.
func (m *Mirror) SetEnabled(ctx context.Context, id string, enabled bool) error {
	if err := m.begin(id); err != nil {
		return err
	}
	now, _, err := m.read(ctx, id)
	if err == nil {
		key := m.key(id, enabledName+now.Lineage)
		if enabled {
			_, err = m.cfg.Store.WriteFile(ctx, key, nil, nil)
		} else if err = m.cfg.Store.Delete(ctx, key); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("mirror: set %s to enabled=%v: %w", id, enabled, err)
	}
	m.tellOthers(ctx)
	return m.sync(ctx)
}
