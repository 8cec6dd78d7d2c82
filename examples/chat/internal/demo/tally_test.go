package demo_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/examples/chat/internal/demo"
)

func TestTally(t *testing.T) {
	start := time.Now()
	after := start.Add(time.Second)
	run := func(saw ...int) demo.Counts {
		tally := demo.NewTally()
		tally.Publisher("p", "r")
		first, second := tally.Subscribe("a", "r", start), tally.Subscribe("b", "r", start)
		tally.Subscribe("elsewhere", "other", start)
		tally.Subscribe("late", "r", after)
		for n := 1; n <= 3; n++ {
			tally.Published()
			tally.Acked(demo.Payload{Publisher: "p", Number: n}, after)
			first.Saw(demo.Payload{Publisher: "p", Number: n})
		}
		for _, n := range saw {
			second.Saw(demo.Payload{Publisher: "p", Number: n})
		}
		return tally.Count()
	}
	good := run(1, 2, 3)
	require.Equal(t, demo.Counts{Published: 3, Acknowledged: 3, Delivered: 6}, good)
	require.Equal(t, 1, run(1, 3).Lost)
	require.Equal(t, 1, run(1, 2, 2, 3).Duplicates)
	require.Equal(t, 1, run(1, 3, 2).Disordered)
	require.Equal(t, 3, run().Lost)
}

func TestTallyComparesOrderBetweenSubscribers(t *testing.T) {
	tally := demo.NewTally()
	now := time.Now()
	a, b := tally.Subscribe("a", "r", now), tally.Subscribe("b", "r", now)
	x, y := demo.Payload{Publisher: "x", Number: 1}, demo.Payload{Publisher: "y", Number: 1}
	a.Saw(x)
	a.Saw(y)
	b.Saw(y)
	b.Saw(x)
	require.Equal(t, 1, tally.Count().Disordered)
}
