package cluster

import (
	"time"

	"golang.org/x/sys/unix"
)

// boottime is the time since boot, suspended time included. It never steps.
func boottime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return time.Since(processStart)
	}
	return time.Duration(ts.Nano())
}
