# Fortet. `make` lists the targets.
SHELL := bash

GO ?= go
# cgo does not see headers outside a package's own folder: their hash in the
# flags makes an edit rebuild what includes them.
HEADERS := $(shell cat kernels/include/*.h kernels/*/*.h | cksum | cut -d' ' -f1)
export CGO_CFLAGS := -g -O3 -DFORTET_HEADERS=$(HEADERS)u

.PHONY: help build demo test test-long levels race emu avx512 lint fuzz bench docs docs-long gpu-notes peers clean

help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

build: ## build bin/fortet
	$(GO) build -o bin/fortet ./cmd/fortet

demo: build ## train a bridge between two classes of handwritten digits, with a report
	bin/fortet demo --out demo

emu: ## build the emulated device library that tests run CUDA kernels on
	./build.sh emu

test: emu ## run the tests (under ten minutes)
	$(GO) test ./...

test-long: emu ## run the slow statistical and large-size tests too
	FORTET_LONG=1 $(GO) test -timeout 120m ./...

levels: ## run solvers, models and program at the CPU levels below this processor's
	FORTET_CPU_LEVEL=baseline $(GO) test ./solver/sinkhorn ./models/sbb ./models/lightsb ./cmd/...
	FORTET_CPU_LEVEL=avx2 $(GO) test ./solver/sinkhorn ./models/sbb ./models/lightsb ./cmd/...

race: emu ## run the tests of everything that is concurrent under the race detector
	$(GO) test -race ./gpu/... ./tensor/... ./solver/... ./models/run/... ./models/light/... ./models/latent/... ./internal/...

avx512: ## test the AVX-512 level in an emulated processor (half an hour; see kernels/avx512.sh)
	kernels/avx512.sh

lint: ## format, vet, staticcheck
	@test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

fuzz: ## fuzz every parser for a minute each
	@set -e; for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
	    $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime 60s $$p; done; done

peers: ## install the libraries that bench compares with, outside the project
	bench/peers/install.sh

bench: build emu ## run the suites and their peers; rows go to bench/results
	bench/run.sh

docs: build ## regenerate docs/{solve,static,timecourse}.md and the figures of README.md
	docs/make.sh

docs-long: ## train the bridges of docs/light-bridges.md again (an hour)
	$(GO) build -o bin/ ./docs/light
	bin/light -root .

gpu-notes: ## make docs/gpu-notes.md from the machine code of the CUDA kernels (wants nvcc)
	./build.sh check >/dev/null
	$(GO) run ./docs/gpunotes

clean: ## remove what was built
	rm -rf bin lib build demo
