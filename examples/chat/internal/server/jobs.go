package server

import (
	"context"
	"fmt"
	"time"

	"github.com/nines-go/nines/jobs"
)

// retention deletes what is too old, and sessions that have expired.
type retention struct{}

// Kind names the job.
func (retention) Kind() string { return "retention" }

// heartbeat counts its runs, in demo mode.
type heartbeat struct{}

// Kind names the job.
func (heartbeat) Kind() string { return "heartbeat" }

const (
	retentionBatch    = 1000
	heartbeatInterval = 10 * time.Second
)

func (s *Server) addJobs() error {
	if err := jobs.AddWorker(s.work, s.retain, &jobs.WorkerOptions{Timeout: time.Hour}); err != nil {
		return err
	}
	if err := s.work.Schedule("retention", jobs.Daily(s.cfg.DataRetentionSettings.DeletionJobStartTime), retention{}, nil); err != nil {
		return err
	}
	if !s.opts.Demo {
		return nil
	}
	if err := jobs.AddWorker(s.work, s.beat, nil); err != nil {
		return err
	}
	return s.work.Schedule("heartbeat", jobs.Every(heartbeatInterval), heartbeat{}, nil)
}

func (s *Server) retain(ctx context.Context, job *jobs.Job[retention]) error {
	if err := s.store.EndExpired(ctx); err != nil {
		return err
	}
	c := s.cfg.DataRetentionSettings
	if !c.EnableMessageDeletion {
		return nil
	}
	cutoff := time.Now().AddDate(0, 0, -c.MessageRetentionDays)
	for total := int64(0); ; {
		n, err := s.store.DeleteBefore(ctx, cutoff, retentionBatch)
		if err != nil {
			return err
		}
		s.stats.deleted.Add(n)
		total += n
		if err := job.Progress(ctx, 100, fmt.Sprintf("%d messages deleted", total)); err != nil {
			return err
		}
		if n < retentionBatch {
			return nil
		}
	}
}

// beat counts in the transaction that completes the job: once for each slot, whatever fails.
func (s *Server) beat(ctx context.Context, job *jobs.Job[heartbeat]) error {
	tx, err := s.store.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback() // after Commit it does nothing
	if err := s.store.Beat(ctx, tx, s.nodeName()); err != nil {
		return err
	}
	if err := job.CompleteTx(ctx, tx); err != nil {
		return err
	}
	return tx.Commit()
}
