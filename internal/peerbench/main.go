// Command peerbench measures nines beside its peers and its limits, in turn and in one run, so that the ratios hold on any machine.
//
//	go run . [-quick] [-only link,cluster,fanout,db,election,jobs,files]
//
// It prints one JSON object for each row and then a table. "ours" is what a user of the package gets, "limit" a program without our
// packages that does the bare work, "peers" the alternatives at the settings that their documentation calls best. Figures are medians
// of at least three rounds. It is a module of its own, so that nobody who uses nines downloads the peers.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// products are the rows by the name that -only takes; nil has no row yet.
var products = map[string]func(*bench) ([]row, error){
	"link":     linkRows,
	"cluster":  nil,
	"fanout":   nil,
	"db":       nil,
	"election": nil,
	"jobs":     nil,
	"files":    nil,
}

// bench is what a product's rows are measured with.
type bench struct {
	quick  bool
	rounds int
	length time.Duration // of one measurement
}

// row is one line of the result.
type row struct {
	Name  string             `json:"row"`
	Unit  string             `json:"unit"`
	Ours  float64            `json:"ours"`
	Limit float64            `json:"limit,omitempty"`
	Peers map[string]float64 `json:"peers"`
	Ratio float64            `json:"ratio"` // ours to what the goal compares it with
	Goal  string             `json:"goal,omitempty"`
	Met   *bool              `json:"met,omitempty"` // nil: for information
}

// atLeast sets ratio and verdict of a row whose figure should be large.
func (r row) atLeast(part, of float64, what string) row {
	r.Ratio = r.Ours / of
	r.Goal = fmt.Sprintf("≥ %g × %s", part, what)
	met := r.Ratio >= part
	r.Met = &met
	return r
}

// atMost sets ratio and verdict of a row whose figure should be small.
func (r row) atMost(part, of float64, what string) row {
	r.Ratio = r.Ours / of
	r.Goal = fmt.Sprintf("≤ %g × %s", part, what)
	met := r.Ratio <= part
	r.Met = &met
	return r
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == childArg {
		os.Exit(runChild(os.Args[2:]))
	}
	quick := flag.Bool("quick", false, "shorter measurements, less than five minutes in all")
	only := flag.String("only", "", "comma-separated products; empty is all that have rows")
	flag.Parse()
	if err := run(*quick, *only); err != nil {
		fmt.Fprintln(os.Stderr, "peerbench:", err)
		os.Exit(1)
	}
}

func run(quick bool, only string) error {
	var names []string
	if only == "" {
		for _, name := range slices.Sorted(maps.Keys(products)) {
			if products[name] != nil {
				names = append(names, name)
			}
		}
	} else {
		for name := range strings.SplitSeq(only, ",") {
			rows, ok := products[name]
			if !ok {
				return fmt.Errorf("-only %q is unknown; use %s", name, strings.Join(slices.Sorted(maps.Keys(products)), ", "))
			}
			if rows == nil {
				return fmt.Errorf("-only %q: no rows yet", name)
			}
			names = append(names, name)
		}
	}
	b := &bench{quick: quick, rounds: 5, length: 3 * time.Second}
	if quick {
		b.rounds, b.length = 3, time.Second
	}
	var all []row
	for _, name := range names {
		rows, err := products[name](b)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, r := range rows {
			line, err := json.Marshal(r)
			if err != nil {
				return err
			}
			fmt.Println(string(line))
		}
		all = append(all, rows...)
	}
	fmt.Println()
	table(all)
	return nil
}

func table(rows []row) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	defer w.Flush()
	fmt.Fprintln(w, "row\tunit\tours\tlimit\tratio\tgoal\tmet\tpeers")
	for _, r := range rows {
		var peers []string
		for _, name := range slices.Sorted(maps.Keys(r.Peers)) {
			peers = append(peers, name+" "+figure(r.Peers[name]))
		}
		met := "-"
		if r.Met != nil {
			met = map[bool]string{true: "yes", false: "NO"}[*r.Met]
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.2f\t%s\t%s\t%s\n",
			r.Name, r.Unit, figure(r.Ours), figure(r.Limit), r.Ratio, r.Goal, met, strings.Join(peers, ", "))
	}
}

func figure(f float64) string {
	if f >= 1000 {
		return fmt.Sprintf("%.0f", f)
	}
	return fmt.Sprintf("%.4g", f)
}

func median(xs []float64) float64 {
	if len(xs) == 0 {
		return 0
	}
	xs = slices.Sorted(slices.Values(xs))
	if n := len(xs); n%2 == 0 {
		return (xs[n/2-1] + xs[n/2]) / 2
	}
	return xs[len(xs)/2]
}
