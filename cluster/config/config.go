package config

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
)

// Config is what Open needs. T is a struct whose fields are the sections, each a struct of settings or a setting itself; its tags are in the
// package comment. Nothing is required.
type Config[T any] struct {
	// Path is the JSON file. One that does not exist yet counts as empty, and the first Save makes it. Empty: there is no file, and what is
	// saved lasts as long as one node of the cluster runs.
	Path string
	// Default is what holds where neither the file nor the environment says anything. Make it the same on all nodes.
	Default T
	// Env is the environment, as of os.Environ, which is what nil means.
	Env []string
	// EnvPrefix begins the names of overrides, such as "CHAT_" in CHAT_SQLSETTINGS_DATASOURCE: prefix, section and setting in capitals. Empty:
	// there are none.
	EnvPrefix string
	// Accept says whether a name that T does not have ("Section.Setting" of the file, or a variable with EnvPrefix) is to be left as it is; it
	// is listed by Accepted and kept in the file. Nil, or false: it is a fault that names the nearest valid one.
	Accept func(name string) bool
	// Validate says all that is wrong with effective values (errors.Join). What it refuses is neither opened, reloaded, saved nor taken from
	// another node. Nil takes everything.
	Validate func(c *T) error
	// ReadOnly says whether the values forbid changes over the cluster: then Save is refused and nothing is taken from others; the file is for
	// the operator alone, and Reload. Nil: they may be changed.
	ReadOnly func(c *T) bool
	// Logger is nil for slog.Default().
	Logger *slog.Logger
}

func (c *Config[T]) validate() (*schema, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("config: "+format, args...)) }
	if strings.ContainsFunc(c.EnvPrefix, func(r rune) bool { return r == '=' || r <= ' ' }) {
		bad("EnvPrefix %q has a space or =; use letters, such as \"CHAT_\"", c.EnvPrefix)
	}
	if c.Path != "" {
		if info, err := os.Stat(c.Path); err == nil && info.IsDir() {
			bad("Path %q is a directory; give the path of a JSON file in it", c.Path)
		}
	}
	sc, err := newSchema(reflect.TypeFor[T](), c.EnvPrefix)
	if err != nil {
		errs = append(errs, err)
	}
	return sc, errors.Join(errs...)
}

// overrides are the variables of the environment that begin with the prefix, the last of each name.
func (c *Config[T]) overrides() map[string]string {
	if c.EnvPrefix == "" {
		return nil
	}
	env := c.Env
	if env == nil {
		env = os.Environ()
	}
	found := map[string]string{}
	for _, e := range env {
		if name, value, ok := strings.Cut(e, "="); ok && strings.HasPrefix(name, c.EnvPrefix) && name != c.EnvPrefix {
			found[name] = value
		}
	}
	return found
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
