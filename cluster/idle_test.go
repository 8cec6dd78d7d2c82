package cluster_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// usage is the processor time of a process so far, and its memory.
func usage(t *testing.T, pid int) (cpu time.Duration, rss int) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
	for _, f := range fields[11:13] { // user and system, in hundredths of a second
		n, err := strconv.Atoi(f)
		require.NoError(t, err)
		cpu += time.Duration(n) * 10 * time.Millisecond
	}
	pages, err := strconv.Atoi(fields[21])
	require.NoError(t, err)
	return cpu, pages * os.Getpagesize()
}

// What an idle node of five costs is told, not judged: it depends on the machine, and on the race detector.
func TestIdleNodeOfFive(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		return
	}
	t.Setenv("NINES_CLUSTER_IDLE", "1")
	children := []*child{spawn(t, "127.0.0.1:1")}
	for range 4 {
		children = append(children, spawn(t, children[0].last().Addr))
	}
	assembled(t, children...)
	<-time.After(time.Duration(times(0, 5)) * time.Second)
	d := time.Duration(times(1, 30)) * time.Second
	var cpu [5]time.Duration
	for i, c := range children {
		cpu[i], _ = usage(t, c.cmd.Process.Pid)
	}
	<-time.After(d)
	for i, c := range children {
		now, rss := usage(t, c.cmd.Process.Pid)
		t.Logf("node %d: %.2f %% of a core, %d MiB", i, 100*float64(now-cpu[i])/float64(d), rss>>20)
	}
	require.True(t, together(children), views(children))
}
