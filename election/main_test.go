package election_test

import (
	"os"
	"testing"
)

// TestMain is also the main of the child processes that tests kill and stop.
func TestMain(m *testing.M) {
	if spec := os.Getenv("ELECTION_CHILD"); spec != "" {
		child(spec)
		return
	}
	os.Exit(m.Run())
}
