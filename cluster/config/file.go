package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const fileMode = 0o600 // of a new file: it may hold secrets

// note stands beside the file, path + ".version": what the file was when it was last saved through the cluster.
type note struct {
	Version Version
	Lineage []Version
	At      time.Time
}

// readFile returns what is at path; nothing where there is no file.
func readFile(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return text, err
}

func readNote(path string) (n note, err error) {
	text, err := readFile(path + noteSuffix)
	if err != nil || len(text) == 0 {
		return n, err
	}
	if err := json.Unmarshal(text, &n); err != nil {
		return note{}, fmt.Errorf("%s cannot be read (%w): remove it", path+noteSuffix, err)
	}
	return n, nil
}

const (
	noteSuffix     = ".version"
	previousSuffix = ".previous"
)

// writeFile replaces what is at path so that a crash at any instant leaves the old or the new content whole: temporary file in the same directory,
// fsync, rename, fsync of the directory. A symbolic link stays, and what it points at is replaced. The old content stays at path + ".previous".
func writeFile(path string, text []byte) error {
	target := resolve(path)
	mode := fs.FileMode(fileMode)
	if info, err := os.Stat(target); err == nil {
		mode = info.Mode().Perm()
		old, err := os.ReadFile(target)
		if err != nil {
			return err
		}
		if err := replace(target+previousSuffix, old, mode); err != nil {
			return err
		}
	}
	return replace(target, text, mode)
}

// resolve follows symbolic links, also one to a file that is not there.
func resolve(path string) string {
	if to, err := filepath.EvalSymlinks(path); err == nil {
		return to
	}
	to, err := os.Readlink(path)
	if err != nil {
		return path
	}
	if !filepath.IsAbs(to) {
		to = filepath.Join(filepath.Dir(path), to)
	}
	return to
}

func replace(target string, text []byte, mode fs.FileMode) (err error) {
	dir := filepath.Dir(target)
	f, err := os.CreateTemp(dir, "."+filepath.Base(target)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if err = f.Chmod(mode); err != nil {
		return err
	}
	if _, err = f.Write(text); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), target); err != nil {
		return err
	}
	if d, err := os.Open(dir); err == nil { // not every file system has this
		_ = d.Sync()
		_ = d.Close()
	}
	return nil
}

// writable says why a file at path could not be replaced.
func writable(path string) error {
	target := resolve(path)
	f, err := os.CreateTemp(filepath.Dir(target), "."+filepath.Base(target)+".*")
	if err != nil {
		return err
	}
	_ = f.Close()
	return os.Remove(f.Name())
}
