package s3store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/filestore/filestoretest"
	"github.com/nines-go/nines/filestore/s3store"
	"github.com/nines-go/nines/internal/lab"
)

// What the test binary does when it is started as another process: who it is in a race, and the store.
const childID, childConfig = "NINES_S3STORE_ID", "NINES_S3STORE_CONFIG"

func TestMain(m *testing.M) {
	if id := os.Getenv(childID); id != "" {
		var cfg s3store.Config
		err := json.Unmarshal([]byte(os.Getenv(childConfig)), &cfg)
		if err == nil {
			s, openErr := s3store.Open(context.Background(), cfg)
			if err = openErr; err == nil {
				err = filestoretest.Racer(context.Background(), s, id)
			}
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestIfAbsentAcrossProcesses(t *testing.T) {
	cfg := config(t, lab.S3(t))
	b, err := json.Marshal(cfg)
	require.NoError(t, err)
	filestoretest.Race(t, open(t, cfg), 4, filestoretest.Chaos(200, 10000), func(id string) *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childID+"="+id, childConfig+"="+string(b))
		return cmd
	})
}
