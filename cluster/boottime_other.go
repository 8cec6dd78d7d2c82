//go:build !linux

package cluster

import "time"

func boottime() time.Duration { return time.Since(processStart) }
