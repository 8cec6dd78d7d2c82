package jobstest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/nines-go/nines/jobs"
	"github.com/nines-go/nines/jobs/jobstest"
)

type report struct{ Team string }

func (report) Kind() string { return "report" }

// A worker and its schedule under test, over a week in which the clocks are set forward.
func Example() {
	_ = func(t *testing.T) {
		db := sqlx.MustOpen("sqlite", ":memory:")
		db.SetMaxOpenConns(1)
		defer db.Close()
		sim := jobstest.New(t, db, time.Date(2026, 3, 27, 12, 0, 0, 0, time.UTC), nil)

		// As in the program.
		var sent []time.Time
		err := jobs.AddWorker(sim.Runner, func(ctx context.Context, job *jobs.Job[report]) error {
			if job.Attempt == 1 {
				return errors.New("the mail server is busy")
			}
			sent = append(sent, job.Slot)
			return nil
		}, nil)
		require.NoError(t, err)
		require.NoError(t, sim.Runner.Schedule("nightly", jobs.Daily("02:30"), report{Team: "a"}, &jobs.ScheduleOptions{TimeZone: "Europe/Berlin"}))

		sim.Advance(3 * 24 * time.Hour)
		require.Len(t, sent, 3)
		require.Equal(t, "01:00", sent[1].Format("15:04"), "03:00 in Berlin: there is no 02:30")
		require.Equal(t, "retryable", sim.Do(report{Team: "b"}, nil).State)
	}
	// Output:
}

func TestExample(t *testing.T) {
	db := sqlx.MustOpen("sqlite", ":memory:")
	db.SetMaxOpenConns(1)
	defer db.Close()
	sim := jobstest.New(t, db, time.Date(2026, 3, 27, 12, 0, 0, 0, time.UTC), nil)
	var sent []time.Time
	require.NoError(t, jobs.AddWorker(sim.Runner, func(ctx context.Context, job *jobs.Job[report]) error {
		if job.Attempt == 1 {
			return errors.New("the mail server is busy")
		}
		sent = append(sent, job.Slot)
		return nil
	}, nil))
	require.NoError(t, sim.Runner.Schedule("nightly", jobs.Daily("02:30"), report{}, &jobs.ScheduleOptions{TimeZone: "Europe/Berlin"}))
	sim.Advance(3 * 24 * time.Hour)
	require.Len(t, sent, 3)
	require.Equal(t, "01:00", sent[1].Format("15:04"))
	require.Equal(t, "retryable", sim.Do(report{}, nil).State)
}
