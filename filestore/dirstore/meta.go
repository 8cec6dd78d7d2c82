package dirstore

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

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
func (d *driver) remember(key string, fi fs.FileInfo, m meta) error {
	m.Key = key
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	dir, name := metaPath(key, fi)
	if err := d.makeDir(dir); err != nil {
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
	o := filestore.Object{Key: key, Size: fi.Size(), Version: version(fi), Modified: fi.ModTime()}
	_, name := metaPath(key, fi)
	f, err := d.root.Open(name)
	if err != nil {
		return o
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxMeta))
	var m meta
	if err != nil || json.Unmarshal(b, &m) != nil || m.Key != key {
		return o
	}
	o.SHA256, o.ContentType, o.Metadata = m.SHA256, m.ContentType, m.Metadata
	return o
}
