package jobs

import (
	"context"
	"fmt"
	"iter"
	"strconv"
)

// Actions are what people do with schedules and jobs, by name and in the order in which to show them, each with one text as its argument: the
// buttons of the console's card. A schedule is named, a job is its ID.
func (r *Runner) Actions() iter.Seq2[string, func(ctx context.Context, arg string) error] {
	job := func(do func(ctx context.Context, id int64) error) func(ctx context.Context, arg string) error {
		return func(ctx context.Context, arg string) error {
			id, err := strconv.ParseInt(arg, 10, 64)
			if err != nil {
				return fmt.Errorf("jobs: %q is not the ID of a job: give its number", arg)
			}
			return do(ctx, id)
		}
	}
	all := []struct {
		name string
		do   func(ctx context.Context, arg string) error
	}{
		{"run schedule now", r.RunNow},
		{"pause schedule", func(ctx context.Context, arg string) error { return r.Pause(ctx, arg, true) }},
		{"resume schedule", func(ctx context.Context, arg string) error { return r.Pause(ctx, arg, false) }},
		{"remove schedule", r.Unschedule},
		{"retry job", job(r.Retry)},
		{"cancel job", job(r.Cancel)},
	}
	return func(yield func(string, func(context.Context, string) error) bool) {
		for _, a := range all {
			if !yield(a.name, a.do) {
				return
			}
		}
	}
}
