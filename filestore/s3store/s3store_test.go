package s3store_test

import (
	"crypto/rand"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/filestore"
	"github.com/nines-go/nines/filestore/filestoretest"
	"github.com/nines-go/nines/filestore/s3store"
	"github.com/nines-go/nines/internal/lab"
)

// Tests against another server: NINES_S3_ENDPOINT (host:port), NINES_S3_BUCKET, NINES_S3_ACCESS_KEY, NINES_S3_SECRET_KEY, and NINES_S3_NO_TLS for
// plain HTTP. What they write is below a prefix of its own and stays there.
func config(t testing.TB, server *lab.S3Server) s3store.Config {
	if server != nil {
		return s3store.Config{
			Endpoint: server.Endpoint(), Bucket: server.Bucket(), AccessKey: server.AccessKey, SecretKey: server.SecretKey, NoTLS: true, PathStyle: true,
		}
	}
	return s3store.Config{
		Endpoint: os.Getenv("NINES_S3_ENDPOINT"), Bucket: os.Getenv("NINES_S3_BUCKET"), Region: os.Getenv("NINES_S3_REGION"),
		AccessKey: os.Getenv("NINES_S3_ACCESS_KEY"), SecretKey: os.Getenv("NINES_S3_SECRET_KEY"), NoTLS: os.Getenv("NINES_S3_NO_TLS") != "",
		PathStyle: os.Getenv("NINES_S3_PATH_STYLE") != "", Prefix: "nines-test/" + t.Name() + "-" + newID(),
	}
}

func open(t testing.TB, cfg s3store.Config) *filestore.Store {
	s, err := s3store.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	if os.Getenv("NINES_S3_ENDPOINT") != "" {
		t.Run("Elsewhere", func(t *testing.T) {
			filestoretest.Run(t, func(t *testing.T) *filestore.Store { return open(t, config(t, nil)) })
		})
	}
	server := lab.S3(t)
	var once sync.Once
	filestoretest.Run(t, func(t *testing.T) *filestore.Store {
		s := open(t, config(t, server))
		once.Do(func() { t.Logf("versitygw: %+v", s.Capabilities()) })
		return s
	})
}

func newID() string { return rand.Text() }
