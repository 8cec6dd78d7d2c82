package lab

import (
	"os"
	"testing"
)

// Need skips the test when err says why what cannot be had here, and fails it when the environment says CI=true: a machine that checks
// changes must have every server. A nil err does nothing. No other code of the module skips a test.
func Need(t testing.TB, what string, err error) {
	t.Helper()
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("%s is needed and CI=true: %v", what, err)
	default:
		t.Skipf("%s is not available: %v", what, err)
	}
}
