package dirstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"sync"

	"github.com/nines-go/nines/filestore"
)

const maxMeta = 64 << 10

// meta is what is known of an object beside its file.
type meta struct {
	Key         string            `json:"key"`
	SHA256      []byte            `json:"sha256"`
	ContentType string            `json:"content_type,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
}

// version is the identity of a file: another file, or another content put into it by other means, has another one. A temporary file keeps its
// inode until it is named, so two objects of one key never share a version.
func version(fi fs.FileInfo) string {
	return fmt.Sprintf("%x-%x-%x", fi.ModTime().UnixNano(), fi.Size(), inode(fi))
}

func metaPath(key string, fi fs.FileInfo) (dir, name string) {
	h := sha256.Sum256([]byte(key))
	sum := hex.EncodeToString(h[:16])
	dir = path.Join(metaDir, sum[:2])
	return dir, path.Join(dir, sum+"."+version(fi))
}

// remember writes the attributes of a file that has no name yet.
func (d *driver) remember(m meta, fi fs.FileInfo) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	dir, name := metaPath(m.Key, fi)
	if err := d.makeDir(dir, false); err != nil {
		return err
	}
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// forget removes the attributes of a file that is gone. What a crash leaves is never found again, and small.
func (d *driver) forget(key string, fi fs.FileInfo) {
	_, name := metaPath(key, fi)
	_ = d.root.Remove(name)
}

// object puts together what is known of a file. A file that came by other means, or a damaged attribute file, has only a size and a time.
func (d *driver) object(key string, fi fs.FileInfo) filestore.Object {
	_, name := metaPath(key, fi)
	m, ok := d.attrs.get(name)
	if !ok {
		m, ok = d.load(key, name)
		if ok {
			d.attrs.put(name, m)
		}
	}
	return m.object(key, fi)
}

func (d *driver) load(key, name string) (m meta, ok bool) {
	f, err := d.root.Open(name)
	if err != nil {
		return meta{}, false
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxMeta))
	if err != nil || json.Unmarshal(b, &m) != nil || m.Key != key || len(m.SHA256) != sha256.Size {
		return meta{}, false
	}
	return m, true
}

func (m meta) object(key string, fi fs.FileInfo) filestore.Object {
	return filestore.Object{
		Key: key, Size: fi.Size(), Version: version(fi), Modified: fi.ModTime(),
		SHA256: bytes.Clone(m.SHA256), ContentType: m.ContentType, Metadata: maps.Clone(m.Metadata),
	}
}

// maxCached bounds the attributes that are kept in memory.
const maxCached = 2048

// attrCache keeps attributes by the name of their file. That name is bound to one content, so what is found is never out of date.
type attrCache struct {
	mu sync.Mutex
	m  map[string]meta
}

func (c *attrCache) get(name string) (meta, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, ok := c.m[name]
	return m, ok
}

func (c *attrCache) put(name string, m meta) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[string]meta{}
	}
	for old := range c.m { // any one
		if len(c.m) < maxCached {
			break
		}
		delete(c.m, old)
	}
	c.m[name] = m
}
