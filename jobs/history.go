package jobs

import (
	"strconv"
	"strings"
	"time"
)

// AttemptError is what an attempt at a job failed with.
type AttemptError struct {
	// Attempt is the attempt's number. After Retry the numbers begin again.
	Attempt int
	// At is when it ended, by the database's clock.
	At time.Time
	// Node is the cluster ID of the node that ran it; "" without a cluster.
	Node string
	// Error is what it failed with, at most 4 KiB; a panic's with its stack.
	Error string
}

const (
	maxHistory     = 10
	maxHistoryText = 4 << 10
)

// The column errors has a line for each failed attempt: number, time, node and quoted text, with tabs between. A line can be added by
// SQL alone, which is how rescue does it.

// history returns what the column errors is to be before and after the time of now.
func (e *execution) history(text, node string) (before, after string) {
	lines := strings.SplitAfter(e.errors, "\n")
	lines = lines[:len(lines)-1]
	lines = lines[max(len(lines)-maxHistory+1, 0):]
	before = strings.Join(lines, "") + strconv.FormatInt(e.attempt-e.uncounted, 10) + "\t"
	return before, "\t" + node + "\t" + strconv.Quote(cutText(text, maxHistoryText)) + "\n"
}

// goneSQL is the line of an attempt whose node is gone.
func (r *Runner) goneSQL() string {
	return r.concat(`errors`, r.text(`attempt-uncounted`), "'\t'", r.text(`{now}`), "'\t'", `node`, "'\t"+`"`+goneText+`"`+"\n'")
}

const goneText = "the node that ran it is gone"

func parseHistory(column string) (errs []AttemptError) {
	for line := range strings.SplitSeq(column, "\n") {
		f := strings.SplitN(line, "\t", 4)
		if len(f) != 4 {
			continue
		}
		n, _ := strconv.Atoi(f[0])
		us, _ := strconv.ParseInt(f[1], 10, 64)
		text, err := strconv.Unquote(f[3])
		if err != nil {
			text = f[3]
		}
		errs = append(errs, AttemptError{Attempt: n, At: instant(us), Node: f[2], Error: text})
	}
	return errs
}
