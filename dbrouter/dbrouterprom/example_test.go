package dbrouterprom_test

import (
	"context"
	"log"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/nines-go/nines/dbrouter"
	"github.com/nines-go/nines/dbrouter/dbrouterprom"
	"github.com/nines-go/nines/dbrouter/dbroutertest"
)

func Example() {
	cfg := dbroutertest.New(2).Config() // a program has its data sources here
	r, err := dbrouter.Open(context.Background(), cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(dbrouterprom.NewCollector(r, nil))

	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	// Output:
}
