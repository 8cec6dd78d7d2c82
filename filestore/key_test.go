package filestore_test

import (
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/filestore"
)

func FuzzCheckKey(f *testing.F) {
	for _, k := range []string{"a/b", "../x", "a//b", "/", "ä", "e\u0301", "a\x00", ".nines/x", strings.Repeat("x", 300)} {
		f.Add(k)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if filestore.CheckKey(key) != nil {
			return
		}
		require.True(t, filepath.IsLocal(filepath.FromSlash(key)), "a valid key stays in the directory")
		require.Equal(t, key, filepath.ToSlash(filepath.Clean(filepath.FromSlash(key))), "and has one spelling")
		require.True(t, utf8.ValidString(key))
		require.LessOrEqual(t, len(key), filestore.MaxKey)
		require.False(t, strings.HasPrefix(key+"/", filestore.Reserved))
	})
}
