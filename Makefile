# make test    set up what the tests need, then run every test with the race detector
# make check   formatting, modules, vet, fix, staticcheck
# make bench   ours beside the limit and the peers, one run
# make chaos   the tests whose full count is too long for every day
# make fuzz    every fuzz target for a minute

export GOFLAGS ?=
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
TESTFLAGS ?=
FUZZTIME ?= 1m

.PHONY: test check bench chaos fuzz setup

setup:
	./scripts/setup

test: setup
	go test -race -shuffle=on -timeout 10m $(TESTFLAGS) ./...
	cd internal/peerbench && go test -race ./...

check:
	./scripts/check $(STATICCHECK)

bench:
	cd internal/peerbench && go run . $(BENCHFLAGS)

chaos: setup
	NINES_CHAOS=1 go test -race -timeout 2h -count=1 $(TESTFLAGS) ./...
	NINES_CHAOS=1 go test -timeout 5h -count=1 $(TESTFLAGS) ./cluster/clustertest # simulated days, too slow with the race detector

fuzz:
	./scripts/fuzz $(FUZZTIME)
