//go:build linux

package dirstore_test

import (
	"testing"
	"time"

	"github.com/nines-go/nines/filestore"
	"github.com/nines-go/nines/filestore/filestoretest"
	"github.com/nines-go/nines/filestore/internal/nastest"
)

func TestConformanceOnNAS(t *testing.T) {
	filestoretest.Run(t, func(t *testing.T) *filestore.Store {
		return open(t, nastest.Mount(t, t.TempDir(), nastest.Options{Cache: 3 * time.Second}).Dir)
	})
}
