package electionprom_test

import (
	"fmt"
	"log"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/nines-go/nines/election"
	"github.com/nines-go/nines/election/electionprom"
	"github.com/nines-go/nines/election/electiontest"
)

func Example() {
	elector, err := election.New(election.Config{Members: electiontest.New().Join("node-1")}) // in a program: a *cluster.Node
	if err != nil {
		log.Fatal(err)
	}
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(electionprom.NewCollector(elector, prometheus.Labels{"election": "default"}))

	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))

	families, err := metrics.Gather()
	fmt.Println(families[0].GetName(), err)
	// Output: nines_election_acquires_blocked_total <nil>
}
