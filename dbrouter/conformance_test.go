package dbrouter_test

import "testing"

// What the router promises holds on every kind of server and through every driver. The parts run one after another on one cluster each; the
// last one leaves it with another primary.
func TestConformance(t *testing.T) {
	t.Parallel()
	setups(t, 2, func(t *testing.T, s *setup) {
		s.book(t)
		t.Run("own reads", func(t *testing.T) { testOwnReads(t, s) })
		t.Run("tokens", func(t *testing.T) { testStrangeTokens(t, s) })
		t.Run("monotonic", func(t *testing.T) { testMonotonic(t, s) })
		t.Run("lag", func(t *testing.T) { testLag(t, s) })
		t.Run("replace", func(t *testing.T) { testReplace(t, s) })
		t.Run("outages", func(t *testing.T) { testOutages(t, s) })
	})
}
