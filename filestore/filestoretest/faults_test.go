package filestoretest_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/filestore"
	"github.com/nines-go/nines/filestore/filestoretest"
	"github.com/nines-go/nines/filestore/memstore"
)

func TestFaults(t *testing.T) {
	s, faults := filestoretest.NewFaults(memstore.Open())
	broken := errors.New("broken")
	put := func() error { _, err := s.WriteFile(t.Context(), "k", []byte("0123456789"), nil); return err }
	get := func() error { _, err := s.ReadFile(t.Context(), "k"); return err }
	require.NoError(t, put())
	faults.Fail(broken, "put", "append")
	require.ErrorIs(t, put(), broken)
	require.NoError(t, get())
	_, err := s.Append(t.Context(), "k", strings.NewReader("x"), nil)
	require.ErrorIs(t, err, broken)
	faults.Fail(broken)
	require.ErrorIs(t, get(), broken)
	for _, err := range s.List(t.Context(), "", "") {
		require.ErrorIs(t, err, broken)
	}
	require.Error(t, s.Check(t.Context()))
	require.Equal(t, int64(4), s.Stats().Failures)
	faults.Heal()
	faults.Cut(4, io.ErrUnexpectedEOF)
	require.ErrorIs(t, get(), io.ErrUnexpectedEOF)
	faults.Heal()
	faults.Before(func(_ context.Context, op, key string) error {
		if op == "get" && key == "k" {
			return broken
		}
		return nil
	})
	require.ErrorIs(t, get(), broken)
	faults.Heal()
	require.NoError(t, get())
	require.NoError(t, s.Check(t.Context()))
}

// The suite passes through the wrappers as it does without them.
func TestConformanceOfWrappers(t *testing.T) {
	filestoretest.Run(t, func(t *testing.T) *filestore.Store {
		s, _ := filestoretest.NewFaults(memstore.Open())
		sub, err := filestore.Observe(s, func(filestore.Operation) {}).Sub("some/where")
		require.NoError(t, err)
		return sub
	})
}
