package wsfanoutprom_test

import (
	"fmt"
	"log"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/nines-go/nines/wsfanout"
	"github.com/nines-go/nines/wsfanout/wsfanoutprom"
)

func Example() {
	hub, err := wsfanout.New(wsfanout.Config{Authenticate: func(*http.Request) (wsfanout.Identity, error) {
		return wsfanout.Identity{User: "ann"}, nil // your session here
	}})
	if err != nil {
		log.Fatal(err)
	}
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(wsfanoutprom.NewCollector(hub, nil))

	mux := http.NewServeMux()
	mux.Handle("/ws", hub)
	mux.Handle("/metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))

	families, err := metrics.Gather()
	fmt.Println(families[0].GetName(), err)
	// Output: nines_wsfanout_acknowledged_total <nil>
}
