package memstore_test

import (
	"testing"

	"github.com/nines-go/nines/filestore"
	"github.com/nines-go/nines/filestore/filestoretest"
	"github.com/nines-go/nines/filestore/memstore"
)

func TestConformance(t *testing.T) {
	filestoretest.Run(t, func(*testing.T) *filestore.Store { return memstore.Open() })
}
