package electiontest_test

import (
	"context"
	"fmt"

	"github.com/nines-go/nines/election/electiontest"
)

// sweeper is a part of a program that works on one node only.
type sweeper struct {
	leader interface {
		Lead(ctx context.Context, fn func(ctx context.Context, term uint64) error) error
	}
	swept chan uint64
}

func (s *sweeper) run(ctx context.Context) error {
	return s.leader.Lead(ctx, func(_ context.Context, term uint64) error {
		s.swept <- term
		return nil
	})
}

// A test of code that works while it leads.
func ExampleLeader() {
	leader := electiontest.NewLeader("node-1") // in the program: an *election.Elector
	s := &sweeper{leader: leader, swept: make(chan uint64, 1)}
	done := make(chan error)
	go func() { done <- s.run(context.Background()) }()

	leader.Revoke("node-2") // another leads: nothing is swept
	fmt.Println("swept:", len(s.swept))
	leader.Grant()
	fmt.Println("swept in term", <-s.swept)
	fmt.Println(<-done)
	// Output:
	// swept: 0
	// swept in term 2
	// <nil>
}
