# See https://tech.davis-hansson.com/p/make/
SHELL := bash
.DELETE_ON_ERROR:
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --warn-undefined-variables
MAKEFLAGS += --no-builtin-rules
MAKEFLAGS += --no-print-directory

# The folder of the tools, installed by version. Git ignores it.
BIN := .bin
export PATH := $(abspath $(BIN)):$(PATH)
BUF_VERSION := v1.75.0
GOLANGCI_LINT_VERSION := v2.15.0
GOVULNCHECK_VERSION := v1.9.0

# The latest released contract.
RELEASED := proto/released.binpb
INTEROP := internal/interop
CONFORMANCE := server/internal/conformance
# Programs that the tests run, as program:package of Debian, or as the path of a file.
DEBIAN := caddy:caddy chromium:chromium curl:curl gcc:gcc h2load:nghttp2-client haproxy:haproxy nginx:nginx redis-server:redis-server \
	/usr/lib/python3/dist-packages/grpc:python3-grpcio

.PHONY: help
help: ## List the targets
	@grep -E '^[a-zA-Z_-]+:.*?## .*$$' $(MAKEFILE_LIST) | sort | awk 'BEGIN {FS = ":.*?## "}; {printf "%-16s %s\n", $$1, $$2}'

.PHONY: run
run: ## Run the server on localhost:50051
	go run ./server

.PHONY: build
build: ## Build static binaries of server and client in bin/
	CGO_ENABLED=0 go build -trimpath -buildvcs=auto -o bin/routeguide-server ./server
	CGO_ENABLED=0 go build -trimpath -buildvcs=auto -o bin/routeguide-client ./client

.PHONY: check
check: lint ## Lint, and run the short tests: for the loop while working
	go test -short ./...

.PHONY: test
test: tools testweb ## Run all tests with the race detector, and the interop tests against stock tools
	go test -race -count=1 ./...
	@echo "Again, without the race detector: with it, sockets are read and written by package net."
	go test -count=1 ./server/h2 ./server/wire ./server/internal/httpserver ./server/internal/service
	cd $(INTEROP) && go test -count=1 ./...
	@echo "Again, on net/http's HTTP/2 server. h2spec is about our own, and the conformance suite has run on both."
	ROUTEGUIDE_HTTP2=net/http go test -race -count=1 ./server/internal/service
	cd $(INTEROP) && ROUTEGUIDE_HTTP2=net/http go test -count=1 -skip 'TestH2spec|TestConnectConformance' .
	cd $(INTEROP) && ROUTEGUIDE_HTTP2=net/http go test -count=1 -run 'TestPageLoads|TestReconnect' ./browser

# Duration of the soak test, and of each fuzz target.
SOAK := 10m
FUZZ := 20s

.PHONY: soak
soak: ## Run the soak test for SOAK (10m): random chats, stalls, resets and drains, then a leak check
	go test -count=1 -timeout 30m -run TestSoak -v ./server -soak $(SOAK)

# Before Go 1.27, go test may fail at the end of the time, by that end alone: https://go.dev/issue/75804.
.PHONY: fuzz
fuzz: ## Run each fuzz target for FUZZ (20s)
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	for file in $$(grep -rl --include=*_test.go '^func Fuzz' .); do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z]*\).*/\1/p' $$file); do \
			echo "$$target in $$(dirname $$file), for $(FUZZ)"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZ) -fuzzminimizetime 10x $$(dirname $$file) 2>&1 | tee "$$log" || \
				{ grep -qx '    context deadline exceeded' "$$log" && ! grep -q 'Failing input' "$$log"; } || exit 1; \
		done; \
	done

.PHONY: screenshot
screenshot: tools ## Take docs/map.png, the picture of the map page, in the real browser
	cd $(INTEROP) && go test -count=1 -run TestScreenshot ./browser -screenshot $(abspath docs/map.png)

.PHONY: vulncheck
vulncheck: ## Check the code and its dependencies for known vulnerabilities (uses vuln.go.dev)
	go run golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION) ./...

.PHONY: bench
bench: tools ## Run the Go benchmarks, the benchmark of the stores, and the comparison with grpc-go's server, in clear and over TLS, and with Centrifugo
	go test -run '^$$' -bench . -benchmem ./...
	CGO_ENABLED=0 go run ./server/internal/storebench
	CGO_ENABLED=0 go run ./server/internal/storebench --locations 10000 --history 10
	CGO_ENABLED=0 go run ./server/internal/storebench --clustered --history 10
	CGO_ENABLED=0 go run ./server/internal/storebench --only pebble --grow 10000000
	cd $(INTEROP) && go run ./bench && go run ./bench -tls

.PHONY: lint
lint: $(BIN)/buf-$(BUF_VERSION) $(BIN)/golangci-lint-$(GOLANGCI_LINT_VERSION) $(CONFORMANCE)/gen ## Lint the contract and the Go code
	buf lint
	buf format --diff --exit-code
	golangci-lint run ./...
	cd $(INTEROP) && golangci-lint run --config ../../.golangci.yml ./...
	cd $(CONFORMANCE) && golangci-lint run --config ../../../.golangci.yml ./...

.PHONY: format
format: $(BIN)/buf-$(BUF_VERSION) $(BIN)/golangci-lint-$(GOLANGCI_LINT_VERSION) ## Format the contract and the Go code
	buf format --write
	golangci-lint fmt ./...
	cd $(INTEROP) && golangci-lint fmt --config ../../.golangci.yml ./...
	cd $(CONFORMANCE) && golangci-lint fmt --config ../../../.golangci.yml ./...

.PHONY: generate
generate: $(BIN)/buf-$(BUF_VERSION) ## Generate gen/ from the contract in proto/
	buf generate

.PHONY: web
web: $(BIN)/buf-$(BUF_VERSION) web/node_modules ## Build web/dist, the map page, from the contract and web/src (needs npm)
	buf generate --template web/buf.gen.yaml
	cd web && npm run check
	cd web && npm run build

.PHONY: testweb
testweb: web/node_modules ## Run the tests of the map page that need no browser (needs npm)
	cd web && npm test

.PHONY: checkgenerate
checkgenerate: generate web $(CONFORMANCE)/gen ## Fail if gen/, web/src/gen, web/dist, go.mod or go.sum are not up to date
	go mod tidy -diff
	cd $(INTEROP) && go mod tidy -diff
	cd $(CONFORMANCE) && go mod tidy -diff
	@changed=$$(git status --porcelain gen); test -z "$$changed" || { echo "$$changed"; echo 'gen/ is not up to date: run `make generate` and commit the result'; exit 1; }
	@changed=$$(git status --porcelain web/src/gen web/dist); test -z "$$changed" || { echo "$$changed"; echo 'web/ is not up to date: run `make web` and commit the result'; exit 1; }

.PHONY: breaking
breaking: $(BIN)/buf-$(BUF_VERSION) ## Fail on breaking changes against the latest released contract
	buf breaking --against $(RELEASED)

.PHONY: release
release: $(if $(wildcard $(RELEASED)),breaking) $(BIN)/buf-$(BUF_VERSION) ## Mark the current contract as released
	buf build -o $(RELEASED)

.PHONY: features
features: ## Generate the embedded features (needs npm)
	go generate ./server/internal/guide

.PHONY: tools
tools: $(BIN)/buf-$(BUF_VERSION) $(CONFORMANCE)/gen ## Install the tools that the tests need
	@for need in $(DEBIAN); do \
		program=$${need%%:*} package=$${need##*:}; \
		if ! command -v $$program >/dev/null && ! test -e $$program; then \
			echo "installing $$package, for $$program"; \
			{ test "$$(id -u)" = 0 && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$package; } || \
			{ echo "the tests need $$program, and it could not be installed: get it from your system's packages (Debian: apt-get install $$package)"; exit 1; }; \
		fi; \
	done

.PHONY: clean
clean: ## Delete all files that git ignores, except the notes in routeguide-notes/
	git clean -Xdf --exclude='!routeguide-notes'

$(BIN)/buf-$(BUF_VERSION):
	GOBIN=$(abspath $(BIN)) go install github.com/bufbuild/buf/cmd/buf@$(BUF_VERSION)
	@rm -f $(BIN)/buf-*; touch $@

# The code of the service of the Connect conformance suite, from the proto files in the module of the suite.
$(CONFORMANCE)/gen: $(BIN)/buf-$(BUF_VERSION) $(CONFORMANCE)/buf.gen.yaml $(INTEROP)/go.mod go.mod
	buf generate "$$(cd $(INTEROP) && go list -f '{{.Module.Dir}}' connectrpc.com/conformance/cmd/connectconformance)" \
		--template $(CONFORMANCE)/buf.gen.yaml --output $(CONFORMANCE)
	@touch $@

# The packages that the lock file names, and no others.
web/node_modules: web/package.json web/package-lock.json
	@command -v npm >/dev/null || { echo 'web/ needs npm, with node 20 or later: get it from your system'"'"'s packages, or from https://nodejs.org'; exit 1; }
	cd web && npm ci
	@touch $@

$(BIN)/golangci-lint-$(GOLANGCI_LINT_VERSION):
	GOBIN=$(abspath $(BIN)) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@rm -f $(BIN)/golangci-lint-*; touch $@
