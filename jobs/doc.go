// Package jobs: recurring and one-off jobs.
package jobs
