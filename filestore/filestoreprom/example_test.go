package filestoreprom_test

import (
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/nines-go/nines/filestore/filestoreprom"
	"github.com/nines-go/nines/filestore/memstore"
)

func Example() {
	files, exports := memstore.Open(), memstore.Open()
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(filestoreprom.NewCollector(files, prometheus.Labels{"store": "files"}))
	metrics.MustRegister(filestoreprom.NewCollector(exports, prometheus.Labels{"store": "exports"}))

	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))

	families, err := metrics.Gather()
	fmt.Println(families[0].GetName(), err)
	// Output: nines_filestore_capability <nil>
}
