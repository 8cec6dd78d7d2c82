package filestore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/filestore"
	"github.com/nines-go/nines/filestore/filestoretest"
	"github.com/nines-go/nines/filestore/internal/nastest"
	"github.com/nines-go/nines/filestore/memstore"
	"github.com/nines-go/nines/internal/lab"
)

func fill(t *testing.T, s *filestore.Store, n int) {
	for i := range n {
		_, err := s.WriteFile(t.Context(), fmt.Sprintf("a/%02d/%d", i%7, i), bytes.Repeat([]byte{byte(i)}, i*100), &filestore.PutOptions{
			ContentType: fmt.Sprintf("test/%d", i%3), Metadata: map[string]string{"n": fmt.Sprint(i)},
		})
		require.NoError(t, err)
	}
}

// contents is everything that a store has, attributes too.
func contents(t *testing.T, s *filestore.Store) map[string]string {
	all := map[string]string{}
	for o, err := range s.List(t.Context(), "", "") {
		require.NoError(t, err)
		o, err := s.Stat(t.Context(), o.Key)
		require.NoError(t, err)
		b, err := s.ReadFile(t.Context(), o.Key)
		require.NoError(t, err)
		all[o.Key] = fmt.Sprint(o.ContentType, o.Metadata, len(b), b)
	}
	return all
}

// From a directory to a bucket and on, with progress, and again without work.
func TestCopyBetweenStores(t *testing.T) {
	server := lab.S3(t)
	directory := dir(t, nastest.Scratch(t))
	fill(t, directory, 60)
	from := directory
	for name, to := range map[string]*filestore.Store{"bucket": bucket(t, server, server.Bucket(), "p"), "memory": memstore.Open()} {
		var mu sync.Mutex
		var told []filestore.CopyProgress
		opts := &filestore.CopyOptions{Progress: func(p filestore.CopyProgress) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, p)
		}}
		p, err := filestore.Copy(t.Context(), from, to, opts)
		require.NoError(t, err, name)
		require.EqualValues(t, 60, p.Copied)
		require.EqualValues(t, 60, p.Objects)
		require.EqualValues(t, 60, p.TotalObjects)
		require.Equal(t, p.TotalBytes, p.Bytes)
		require.EqualValues(t, 100*60*59/2, p.Bytes)
		require.Equal(t, p, told[len(told)-1])
		require.True(t, p.Counted)
		require.Equal(t, contents(t, from), contents(t, to), name)
		p, err = filestore.Copy(t.Context(), from, to, nil)
		require.NoError(t, err)
		require.EqualValues(t, 60, p.Skipped)
		require.Zero(t, p.Copied)
		// What changed since then, content or attributes alone, is copied again.
		_, err = from.WriteFile(t.Context(), "a/00/0", []byte("changed"), nil)
		require.NoError(t, err)
		_, err = from.WriteFile(t.Context(), "a/01/1", bytes.Repeat([]byte{1}, 100), &filestore.PutOptions{ContentType: "other/" + name})
		require.NoError(t, err)
		p, err = filestore.Copy(t.Context(), from, to, &filestore.CopyOptions{DryRun: true})
		require.NoError(t, err)
		require.EqualValues(t, 2, p.Copied)
		require.NotEqual(t, contents(t, from), contents(t, to))
		p, err = filestore.Copy(t.Context(), from, to, &filestore.CopyOptions{Prefix: "a/00/"})
		require.NoError(t, err)
		require.EqualValues(t, 1, p.Copied)
		p, err = filestore.Copy(t.Context(), from, to, &filestore.CopyOptions{Workers: 1})
		require.NoError(t, err)
		require.EqualValues(t, 1, p.Copied)
		require.Equal(t, contents(t, from), contents(t, to))
		require.NoError(t, from.Delete(t.Context(), "a/00/0"))
		require.NoError(t, from.Delete(t.Context(), "a/01/1"))
		fill(t, from, 2)
	}
}

// damaging gives back something else than was put.
type damaging struct{ filestore.Driver }

func (d damaging) Get(ctx context.Context, key string, o *filestore.GetOptions) (io.ReadCloser, filestore.Object, error) {
	r, obj, err := d.Driver.Get(ctx, key, o)
	if err == nil && strings.HasSuffix(key, "/5") {
		b, _ := io.ReadAll(r)
		b[3] ^= 1
		r = io.NopCloser(bytes.NewReader(b))
	}
	return r, obj, err
}

// Damage on either side is found, told by key, and does not stop the rest.
func TestCopyFindsDamage(t *testing.T) {
	damage := func(s *filestore.Store) *filestore.Store {
		return filestore.Wrap(s, func(d filestore.Driver) filestore.Driver { return damaging{d} })
	}
	source := memstore.Open()
	fill(t, source, 20)
	for name, pair := range map[string][2]*filestore.Store{
		"source": {damage(source), memstore.Open()},
		"target": {source, damage(memstore.Open())},
	} {
		p, err := filestore.Copy(t.Context(), pair[0], pair[1], nil)
		require.ErrorIs(t, err, filestore.ErrCorrupt, name)
		require.ErrorContains(t, err, `"a/05/5"`, name)
		require.EqualValues(t, 1, p.Failed, name)
		require.EqualValues(t, 19, p.Copied, name)
		require.EqualValues(t, 20, p.Objects, name)
	}
	_, err := filestore.Copy(t.Context(), source, source, nil)
	require.ErrorContains(t, err, "one store")
	_, err = filestore.Copy(t.Context(), nil, source, &filestore.CopyOptions{Workers: 99, Prefix: "../"})
	require.ErrorContains(t, err, "Workers")
	require.ErrorIs(t, err, filestore.ErrInvalidKey)
}

// A Copy that is cut off goes on where it was; failures are told, and a cancelled context once.
func TestCopyGoesOn(t *testing.T) {
	source, target := memstore.Open(), memstore.Open()
	fill(t, source, 50)
	broken, faults := filestoretest.NewFaults(target)
	ctx, cancel := context.WithCancel(t.Context())
	puts := 0
	var mu sync.Mutex
	faults.Before(func(_ context.Context, op, _ string) error {
		mu.Lock()
		defer mu.Unlock()
		if op == "put" {
			if puts++; puts == 20 {
				cancel()
			}
		}
		return nil
	})
	_, err := filestore.Copy(ctx, source, broken, nil)
	require.ErrorIs(t, err, context.Canceled)
	away := errors.New("away")
	faults.Before(func(_ context.Context, op, key string) error {
		if op == "put" && strings.HasSuffix(key, "7") {
			return away
		}
		return nil
	})
	p, err := filestore.Copy(t.Context(), source, broken, nil)
	require.ErrorIs(t, err, away)
	require.GreaterOrEqual(t, p.Skipped, int64(10))
	require.Positive(t, p.Failed)
	require.Equal(t, int64(50), p.Copied+p.Skipped+p.Failed)
	faults.Heal()
	p, err = filestore.Copy(t.Context(), source, broken, nil)
	require.NoError(t, err)
	require.Positive(t, p.Copied)
	require.Equal(t, contents(t, source), contents(t, target))
}
