//go:build race

package clustertest_test

// raced says that the race detector runs, which makes simulations ten times slower.
const raced = true
