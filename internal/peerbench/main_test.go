package main

import (
	"strings"
	"testing"
)

func TestNamesWithoutRowsAreErrors(t *testing.T) {
	for only, says := range map[string]string{"nothing": "unknown", "link,nothing": "unknown", "cluster": "no rows yet"} {
		if err := run(true, only); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("-only %s: %v", only, err)
		}
	}
}

func TestVerdicts(t *testing.T) {
	if r := (row{Ours: 9}).atLeast(0.8, 10, "limit"); r.Ratio != 0.9 || !*r.Met || r.Goal != "≥ 0.8 × limit" {
		t.Errorf("%+v", r)
	}
	if r := (row{Ours: 11}).atMost(1, 10, "nats"); *r.Met {
		t.Errorf("%+v", r)
	}
	if m := median([]float64{3, 1, 2}); m != 2 {
		t.Error(m)
	}
}
