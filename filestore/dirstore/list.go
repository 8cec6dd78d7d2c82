package dirstore

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nines-go/nines/filestore"
)

// List walks the folders below the prefix in the order of the keys' bytes.
func (d *driver) List(ctx context.Context, prefix, delimiter string) iter.Seq2[filestore.Object, error] {
	return func(yield func(filestore.Object, error) bool) {
		dir := ""
		if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
			dir = prefix[:i+1]
		}
		w := walk{d: d, ctx: ctx, prefix: prefix, flat: delimiter == "", yield: yield}
		w.dir(dir)
	}
}

type walk struct {
	d      *driver
	ctx    context.Context
	prefix string
	flat   bool // no delimiter: folders are walked
	yield  func(filestore.Object, error) bool
}

// entry is a name of a folder as a part of a key: those of folders end with a slash, which is also how they sort.
type entry struct {
	key string
	dir bool
}

func (w *walk) read(dir string) ([]entry, error) {
	f, err := w.d.root.Open(filepath.FromSlash(path.Clean("./" + dir)))
	if err != nil {
		return nil, absent(err)
	}
	defer f.Close()
	infos, err := f.ReadDir(-1)
	entries := make([]entry, 0, len(infos))
	for _, e := range infos {
		en := entry{key: dir + e.Name(), dir: e.IsDir()}
		if !en.dir && !e.Type().IsRegular() {
			fi, err := w.d.root.Stat(filepath.FromSlash(en.key)) // a link to a file inside the store counts as that file
			if err != nil || !fi.Mode().IsRegular() {
				continue
			}
		}
		if en.dir {
			en.key += "/"
		}
		if hidden(en.key, en.dir) {
			continue
		}
		entries = append(entries, en)
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.key, b.key) })
	return entries, absent(err)
}

// dir yields what is below a folder; false ends the walk.
func (w *walk) dir(dir string) bool {
	entries, err := w.read(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return true
		}
		return w.yield(filestore.Object{}, err)
	}
	for _, e := range entries {
		if err := w.ctx.Err(); err != nil {
			w.yield(filestore.Object{}, err)
			return false
		}
		matches := strings.HasPrefix(e.key, w.prefix)
		switch {
		case e.dir && w.flat && (matches || strings.HasPrefix(w.prefix, e.key)):
			if !w.dir(e.key) {
				return false
			}
		case e.dir && matches:
			if w.holds(e.key) && !w.yield(filestore.Object{Key: e.key}, nil) {
				return false
			}
		case !e.dir && matches:
			o, err := w.d.Stat(w.ctx, e.key)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if !w.yield(o, err) || err != nil {
				return false
			}
		}
	}
	return true
}

// holds reports whether there is an object anywhere below a folder: an empty one is nothing.
func (w *walk) holds(dir string) bool {
	entries, err := w.read(dir)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(entries, func(e entry) bool { return !e.dir || w.holds(e.key) })
}
