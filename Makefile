# Thin: what each target does is in the programs it calls.

CARGO ?= cargo
CELL_SCRIPT := testcell/cell/cell

.PHONY: demo test lint fuzz bench deploy-test cell cell-down

# A cell in the program, mounted for you to play with. `make demo CELL=openafs': a tour of a real one; needs root.
demo:
	$(if $(filter openafs,$(CELL)),testcell/cell/install)
	$(CARGO) build --release -p fuse
	target/release/afs demo $(if $(CELL),--cell $(CELL))

# Everything that must hold. Needs root for the tests against a real cell.
test: lint
	testcell/cell/install
	$(CARGO) test -p rxrpc -p afs-client -p fuse -p fuzz
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom $(CARGO) test --release -p rxrpc loom
	$(CARGO) build -p fuse
	$(CARGO) test -p deploy
	$(CARGO) test -p testcell --lib --test embedded
	$(CARGO) test -p testcell --test local -- --skip reattach
	$(CARGO) test -p testcell --test cell -- --test-threads 1
	$(CARGO) test -p testcell --test outage -- --test-threads 1

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --workspace

# Looks for inputs that break something, with libFuzzer: FUZZ_SECONDS for each target.
fuzz:
	fuzz/run

# Ratios in one run: of the transport to raw UDP and to what links allow, then of the mount to OpenAFS's own FUSE client and to local file
# systems. Needs root. All of them run; it fails if one missed what is wanted of it.
bench:
	testcell/cell/install
	$(CARGO) build --release -p fuse
	$(CARGO) build --release -p testcell --bin testcell-link
	missed=; \
	for name in bulk small memory wan fcrypt; do $(CARGO) bench -q -p rxrpc --bench $$name || missed="$$missed $$name"; done; \
	for name in calls levels; do $(CARGO) bench -q -p testcell --bench $$name || missed="$$missed $$name"; done; \
	for name in metrics vnodes; do $(CARGO) bench -q -p fuse --bench $$name || missed="$$missed $$name"; done; \
	RESTART_FILES=10000 $(CARGO) test -q --release -p testcell --test embedded a_restart_fetches -- --nocapture || missed="$$missed restart"; \
	testcell/bench || missed="$$missed testcell"; \
	testcell/bench-cache || missed="$$missed cache"; \
	testcell/bench-wan || missed="$$missed testcell-wan"; \
	testcell/bench-traces || missed="$$missed traces"; \
	test -z "$$missed" || { echo "missed:$$missed"; exit 1; }

# What is deployed, run (deploy/README.md), and mounts whose process is killed. Needs root; installs what it lacks.
deploy-test:
	$(CARGO) build -p fuse
	$(CARGO) test -p testcell --test local reattach
	deploy/test

cell:
	testcell/cell/install
	$(CELL_SCRIPT) up --servers 2

cell-down:
	$(CELL_SCRIPT) down
