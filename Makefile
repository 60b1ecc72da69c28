# Every target is a thin line over cargo, npm or the development stack's own program.
.DEFAULT_GOAL := help
.SUFFIXES:

BIN := $(or $(CARGO_TARGET_DIR),target)/debug
FAULTY := $(or $(CARGO_TARGET_DIR),target)/faulty
DEV := $(BIN)/parlance-dev
JS := services/harness/js
PACKAGES := $(JS)/node_modules/.package-lock.json
CONTRACT := services/gateway/contract/lint
LINTER := $(CONTRACT)/node_modules/.package-lock.json
LINT := services/harness/lint
JS_LINTER := $(LINT)/node_modules/.package-lock.json
PEER := services/harness/peers/node
PEER_PACKAGES := $(PEER)/node_modules/.package-lock.json
SPACE := $(subst ,, )
RELEASE := $(or $(CARGO_TARGET_DIR),target)/release

.PHONY: help up down status demo demo-agent token doctor test test-quick test-hostile test-faults faulty bench check fmt fmt-check \
  lint lint-js lint-text lint-migrations lint-dependencies doc generate check-generated lint-contract lint-deploy \
  proto-clients release-contract build

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: $(DEV) ## Start the stack, in containers where an engine answers: GATEWAYS=2 PERSISTENCE=2 PORT=4004 STACK=local
	@$(DEV) engine >/dev/null || $(MAKE) --no-print-directory build
	@$(DEV) engine >/dev/null || $(MAKE) --no-print-directory $(PACKAGES) || echo "without npm, /socket.io/socket.io.js is not served"
	@$(DEV) up

down: $(DEV) ## Stop everything; PURGE=1 deletes the data as well
	@$(DEV) down $(if $(PURGE),--purge)

status: $(DEV) ## Show what runs
	@$(DEV) status

demo: $(DEV) $(PACKAGES) ## Run a conversation of two users through two gateways
	@$(DEV) demo

demo-agent: $(DEV) $(PACKAGES) ## Let agents in Rust and Python answer in a conversation, word by word
	@cargo build --quiet --workspace --bins --example agent
	@$(DEV) demo-agent

token: $(DEV) ## Print a token: SUB=alice NAME=Alice
	@$(DEV) token "$(or $(SUB),$(error say for whom: make token SUB=alice))" $(if $(NAME),"$(NAME)")

doctor: ## Check what this machine needs, with the fix for whatever is missing
	@command -v cargo >/dev/null || { echo "  MISSING  rust        install Rust from https://rustup.rs"; exit 1; }
	@command -v cc >/dev/null || { echo "  MISSING  C compiler  install one (Debian: apt install build-essential; macOS: xcode-select --install)"; exit 1; }
	@$(MAKE) --silent --no-print-directory $(DEV)
	@$(DEV) doctor

test: $(PACKAGES) faulty ## Run all tests on throw-away servers and free ports
	@cargo build --workspace --all-targets
	@cargo test --workspace --doc --quiet
	@if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --workspace; \
	else cargo test --workspace --lib --bins --tests -- --test-threads=2; fi

# What is worth waiting for between two edits; all of it starts one stack.
QUICK_SUITES := --workspace --lib --bins --test contract --test generated --test released
QUICK_SYSTEM := boundaries:: layers:: flaws:: conformance:: settings:: conversations::messages_cross
test-quick: $(PACKAGES) ## Run unit tests, dialects, contract and one crossing of two gateways, in two minutes
	@cargo build --workspace --bins
	@if cargo nextest --version >/dev/null 2>&1; then cargo nextest run $(QUICK_SUITES) --test it \
	  -E 'not binary(it) | (package(parlance-harness) & test(/^($(subst $(SPACE),|,$(QUICK_SYSTEM)))/))'; \
	else cargo test $(QUICK_SUITES) && cargo test --workspace --test it -- $(QUICK_SYSTEM); fi

test-hostile: $(PACKAGES) faulty ## Play hostile users against bystanders
	@cargo build --workspace --bins
	@cargo test --workspace --test it -- --include-ignored --test-threads=1 --nocapture hostile feed::

FAULT_SUITES := faults:: mutants:: kills:: journals:: feed:: hostile:: redelivery::
# A measurement for a release build, and what needs another clock.
NO_FAULTS := ten_editors $(if $(wildcard /usr/lib/*/faketime/libfaketime.so.1),,f14_)
test-faults: $(PACKAGES) faulty ## Run the whole fault suite and print its table: PARLANCE_FAULTS_SEED=…
	@cargo build --workspace --bins
	@rm -f $(FAULTY)/table; code=0; \
	export PARLANCE_FAULTS_RATE=$${PARLANCE_FAULTS_RATE:-100} PARLANCE_FAULTS_TABLE=$(abspath $(FAULTY))/table; \
	if cargo nextest --version >/dev/null 2>&1; then \
	  cargo nextest run --profile faults --workspace --test it --run-ignored all \
	    -E 'test(/^($(subst $(SPACE),|,$(FAULT_SUITES)))/) - test(/$(subst $(SPACE),|,$(strip $(NO_FAULTS)))/)' || code=1; \
	else \
	  cargo test --workspace --test it -- --include-ignored --test-threads=1 \
	    $(addprefix --skip ,$(NO_FAULTS)) $(FAULT_SUITES) || code=1; \
	fi; \
	services/harness/fault-table $(FAULTY)/table || code=1; exit $$code

# The services are built by themselves: no feature that only the harness needs is measured.
bench: $(PEER_PACKAGES) ## Measure beside the stock stack: ONLY=connect,join QUICK=1 ROUNDS=3 SYSTEM=both
	@( while sleep 20; do echo "still building for release"; done ) & ticker=$$!; \
	cargo build --release -p parlance-gateway -p parlance-persistence --bins \
	  && cargo build --release -p parlance-harness --bin parlance-load; code=$$?; \
	kill $$ticker; exit $$code
	@JSON="$(or $(JSON),$(RELEASE)/bench.json)" $(RELEASE)/parlance-load

# The services once more, with failpoints and the flaws of services/harness/flaws, from a folder that has these; what they depend
# on is built once, because the whole workspace decides its features.
faulty:
	@services/harness/flaw tree $(FAULTY)/tree
	@CARGO_TARGET_DIR=$(abspath $(dir $(FAULTY))) cargo build --manifest-path $(FAULTY)/tree/Cargo.toml --workspace \
	  --bin parlance-gateway --bin parlance-persistence --features parlance-gateway/faults,parlance-persistence/faults
	@for service in gateway persistence; do cp -f $(BIN)/parlance-$$service $(FAULTY)/; done

check: fmt-check lint-text lint-js lint-migrations lint-dependencies lint doc check-generated lint-contract lint-deploy test ## Everything that CI does

fmt: $(JS_LINTER) ## Format the sources
	@cargo fmt --all
	@cd $(LINT) && npm run --silent format

fmt-check:
	@cargo fmt --all --check

lint: ## Run clippy; warnings are errors
	@cargo clippy --workspace --all-targets -- -D warnings

lint-js: $(JS_LINTER) $(PACKAGES) ## Check format, lints and types of the JavaScript
	@k8s/lint/install
	@cd $(LINT) && npm run --silent lint

lint-text: ## Check spelling, terms, links and that every deliberate flaw applies
	@$(LINT)/text

lint-migrations: ## Check new migrations for locks and rewrites
	@$(LINT)/migrations

lint-dependencies: ## Check for unused dependencies, licences, sources and advisories, with what is installed
	@$(LINT)/dependencies

doc: ## Build the API documentation; warnings are errors
	@RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

generate: ## Rewrite the files that are generated from others
	@PARLANCE_BLESS=1 cargo test --quiet --workspace --test generated --test contract
	@PARLANCE_BLESS=1 cargo test --quiet --workspace --test it -- conformance::the_readme settings::the_compose_file flaws::the_readme generated::

check-generated:
	@sum() { { git diff; git status --porcelain --untracked-files=all; } | git hash-object --stdin; }; \
	before=$$(sum); $(MAKE) --no-print-directory generate && test "$$before" = "$$(sum)" \
	|| { echo "generated files were out of date: keep what \`make generate\` wrote"; git status --short; exit 1; }

lint-contract: $(LINTER) ## Check the OpenAPI and AsyncAPI documents
	@cd $(CONTRACT) && npm run --silent lint

lint-deploy: ## Check the container files, the Kubernetes objects, alerts and dashboard
	@deploy/lint
	@k8s/check
	@deploy/observability/check

proto-clients: ## Generate the types of the bus for Node.js and Python, in target/proto-clients
	@proto/clients/generate

# Part of a release, and of nothing else: what was written cannot change afterwards.
release-contract: ## Take the bus contract over as the released one
	@PARLANCE_RELEASE_CONTRACT=1 cargo test --quiet -p parlance-proto --test released

build:
	@cargo build --workspace --bins

$(DEV):
	@cargo build --quiet --workspace --bin parlance-dev

$(PACKAGES): $(JS)/package.json $(JS)/package-lock.json
	@cd $(JS) && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(PEER_PACKAGES): $(PEER)/package.json $(PEER)/package-lock.json
	@cd $(PEER) && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(JS_LINTER): $(LINT)/package.json $(LINT)/package-lock.json
	@cd $(LINT) && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(LINTER): $(CONTRACT)/package.json $(CONTRACT)/package-lock.json
	@cd $(CONTRACT) && npm ci --no-audit --no-fund --loglevel=error
	@touch $@
