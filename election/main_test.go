package election_test

import (
	"flag"
	"os"
	"testing"
)

// TestMain is also the main of the child processes that tests kill and stop.
func TestMain(m *testing.M) {
	if spec := os.Getenv("ELECTION_CHILD"); spec != "" {
		child(spec)
		return
	}
	flag.Parse()
	_ = flag.Set("test.parallel", "8") // they wait for leases, more than for the processor
	os.Exit(m.Run())
}
