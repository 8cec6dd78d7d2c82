package jobsprom_test

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nines-go/nines/jobs"
	"github.com/nines-go/nines/jobs/jobsprom"
)

func ExampleNewCollector() {
	var runner *jobs.Runner // from jobs.New
	registry := prometheus.NewRegistry()
	if runner != nil {
		registry.MustRegister(jobsprom.NewCollector(runner, nil))
	}
}
