package dirstore

import (
	"context"
	"errors"
	"io"
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

// window is how many names of a folder are held at once. A folder that has more is read again for the next ones, so that memory does not grow
// with its size.
const window = 8192

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

func byKey(a, b entry) int { return strings.Compare(a.key, b.key) }

// each calls fn for what a folder holds, in no order, until fn returns false.
func (w *walk) each(dir string, fn func(entry) bool) error {
	f, err := w.d.root.Open(filepath.FromSlash(path.Clean("./" + dir)))
	if err != nil {
		return absent(err)
	}
	defer f.Close()
	for {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		infos, err := f.ReadDir(512)
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
			if !w.hidden(en) && !fn(en) {
				return nil
			}
		}
		if err == io.EOF || err == nil && len(infos) == 0 {
			return nil
		}
		if err != nil {
			return absent(err)
		}
	}
}

// hidden reports whether a name of the directory is no key: the store's own where they are not asked for, or one that CheckKey refuses.
func (w *walk) hidden(e entry) bool {
	if strings.HasPrefix(e.key, filestore.Reserved) {
		return !strings.HasPrefix(w.prefix, filestore.Reserved)
	}
	return !e.dir && filestore.CheckKey(e.key) != nil
}

// after returns the first entries of a folder after the one whose key is last, in order, and whether there are more.
func (w *walk) after(dir, last string) (entries []entry, more bool, err error) {
	err = w.each(dir, func(e entry) bool {
		if e.key <= last || !strings.HasPrefix(e.key, w.prefix) && !(e.dir && strings.HasPrefix(w.prefix, e.key)) {
			return true
		}
		if len(entries) == 2*window {
			slices.SortFunc(entries, byKey)
			entries = entries[:window]
		}
		entries = append(entries, e)
		return true
	})
	slices.SortFunc(entries, byKey)
	if len(entries) > window {
		entries, more = entries[:window], true
	}
	return entries, more, err
}

// dir yields what is below a folder; false ends the walk.
func (w *walk) dir(dir string) bool {
	for last, more := "", true; more; {
		var entries []entry
		var err error
		entries, more, err = w.after(dir, last)
		if err != nil {
			return errors.Is(err, fs.ErrNotExist) || w.yield(filestore.Object{}, err)
		}
		for _, e := range entries {
			if err := w.ctx.Err(); err != nil {
				w.yield(filestore.Object{}, err)
				return false
			}
			if !w.entry(e) {
				return false
			}
			last = e.key
		}
	}
	return true
}

func (w *walk) entry(e entry) bool {
	matches := strings.HasPrefix(e.key, w.prefix)
	switch {
	case e.dir && (w.flat || !matches):
		return w.dir(e.key)
	case e.dir:
		return !w.holds(e.key) || w.yield(filestore.Object{Key: e.key}, nil)
	}
	o, err := w.d.Stat(w.ctx, e.key)
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	return w.yield(o, err) && err == nil
}

// holds reports whether there is an object anywhere below a folder: an empty one is nothing.
func (w *walk) holds(dir string) bool {
	found := false
	var folders []string
	_ = w.each(dir, func(e entry) bool {
		if found = !e.dir; !found {
			folders = append(folders, e.key)
		}
		return !found
	})
	return found || slices.ContainsFunc(folders, w.holds)
}
