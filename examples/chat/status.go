package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

// Exit statuses of status.
const (
	exitGreen = iota
	exitAmber
	exitRed
	exitUnreachable
)

// clusterStatus is what status reads of the console's status.json.
type clusterStatus struct {
	Verdict struct {
		Level string `json:"level"`
		Text  string `json:"text"`
	} `json:"verdict"`
	Nodes []struct {
		ID      string    `json:"id"`
		Name    string    `json:"name"`
		Addr    string    `json:"addr"`
		Version string    `json:"version"`
		State   string    `json:"state"`
		Level   string    `json:"level"`
		Started time.Time `json:"started"`
		Error   string    `json:"error"`
		Reasons []struct {
			Text   string `json:"text"`
			Remedy string `json:"remedy"`
		} `json:"reasons"`
		Cards []struct {
			Name   string          `json:"name"`
			Level  string          `json:"level"`
			Error  string          `json:"error"`
			Remedy string          `json:"remedy"`
			Stats  json.RawMessage `json:"stats"`
		} `json:"cards"`
	} `json:"nodes"`
}

func status(ctx context.Context, args []string, out io.Writer) int {
	flags := flag.NewFlagSet("status", flag.ContinueOnError)
	base := flags.String("url", "http://localhost:8065", "`URL` of any server of the cluster")
	expect := flags.Int("expect", 0, "red when fewer than `N` servers are alive")
	asJSON := flags.Bool("json", false, "print the document that programs read")
	if code, ok := parse(flags, args); !ok {
		return code
	}
	if !strings.Contains(*base, "://") { // host:port, as people say it
		*base = "http://" + *base
	}
	text, err := fetchStatus(ctx, *base)
	var doc clusterStatus
	if err == nil {
		err = json.Unmarshal(text, &doc)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "chat: status of %s cannot be read (%v): give the URL of a running server with -url, from the host that it runs on\n", *base, err)
		return exitUnreachable
	}
	alive := 0
	for _, n := range doc.Nodes {
		if n.State == "alive" {
			alive++
		}
	}
	code, known := map[string]int{"green": exitGreen, "amber": exitAmber, "red": exitRed}[doc.Verdict.Level]
	if !known || alive < *expect {
		code = exitRed
	}
	if *asJSON {
		fmt.Fprintln(out, strings.TrimSpace(string(text)))
		return code
	}
	fmt.Fprintf(out, "%s: %s\n", strings.ToUpper(doc.Verdict.Level), doc.Verdict.Text)
	if alive < *expect {
		fmt.Fprintf(out, "RED: %d servers are alive and %d are expected: start the others\n", alive, *expect)
	}
	printNodes(out, doc)
	return code
}

func printNodes(out io.Writer, doc clusterStatus) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tADDRESS\tSTATE\tLEADER\tVERSION\tUPTIME\tREASON")
	for _, n := range doc.Nodes {
		leader, uptime := "", ""
		var reasons []string
		if n.Error != "" {
			reasons = append(reasons, n.Error)
		}
		for _, r := range n.Reasons {
			reasons = append(reasons, r.Text)
		}
		for _, c := range n.Cards {
			var election struct {
				State struct {
					Leading bool `json:"leading"`
				} `json:"state"`
			}
			if c.Name == "leader" && json.Unmarshal(c.Stats, &election) == nil && election.State.Leading {
				leader = "leader"
			}
			if c.Level != "green" {
				reasons = append(reasons, c.Name+": "+c.Error)
			}
		}
		if n.State == "alive" && !n.Started.IsZero() {
			uptime = time.Since(n.Started).Round(time.Second).String()
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", n.Name, n.Addr, n.State, leader, n.Version, uptime, strings.Join(reasons, "; "))
	}
	t.Flush() // the writer below reports its own faults
}

func fetchStatus(ctx context.Context, base string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(base, "/")+"/admin/ha/status.json", nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("answered %s: %s", res.Status, strings.Join(strings.Fields(string(text[:min(len(text), 300)])), " "))
	}
	return text, err
}
