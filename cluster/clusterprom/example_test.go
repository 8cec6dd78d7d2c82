package clusterprom_test

import (
	"fmt"
	"log"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/nines-go/nines/cluster"
	"github.com/nines-go/nines/cluster/clusterprom"
)

func Example() {
	node, err := cluster.New(cluster.Config{ClusterName: "production", Single: true})
	if err != nil {
		log.Fatal(err)
	}
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(clusterprom.NewCollector(node, nil))

	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))

	families, err := metrics.Gather()
	fmt.Println(families[0].GetName(), err)
	// Output: nines_cluster_events_total <nil>
}
