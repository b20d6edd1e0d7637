# `make` lists the targets.

# Where rustup installs cargo, for shells without it on PATH.
export PATH := $(PATH):$(HOME)/.cargo/bin

# More arguments for the demonstration: make demo ARGS="--rate 10000 --duration 30s"
ARGS ?=

# How long each fuzz target runs.
FUZZ_SECONDS ?= 60

# The prefix of `make install`; DESTDIR is put before it, for packages.
PREFIX ?= /usr/local
DESTDIR ?=

.PHONY: help demo chaos bench bench-peers micro-bench takeovers test faults model check fuzz cargo redis monitoring-check
.PHONY: deny check-sdk check-python check-node check-servers servers interpreters workers
.PHONY: check-compose check-kubernetes check-without-tls
.PHONY: compose-test build man book install uninstall dist deb check-systemd check-packaging systemd-test cargo-deb

help:
	@echo 'make demo    build everything and watch a cluster lose its leader (ARGS="--rate 10000 --duration 30s")'
	@echo 'make chaos   two minutes of faults under load, and a report (ARGS="--seed 7 --duration 10m")'
	@echo 'make bench   compare throughput with a Streams group and a bare relay, on an idle machine (ARGS="--latency")'
	@echo 'make bench-peers  compare with a Streams group as in production, and with BullMQ in Node'
	@echo 'make micro-bench  the cost of frames, ring, protocol and stamp per message (ARGS="ring")'
	@echo 'make takeovers  the time until the next leader delivers, after the last was killed, stopped, or hung'
	@echo 'make test    run all tests; those that need Redis start a private one'
	@echo 'make faults  the long fault matrix; as root also its network rows'
	@echo 'make model   check the model of leadership and intake with larger bounds'
	@echo 'make monitoring-check  alerts and dashboard against a real Prometheus and a real cluster'
	@echo 'make compose-test  build the image, start compose.yml, inject faults, audit (DURATION=60 SEED=7); the same with'
	@echo '             compose.secure.yml, replacing secrets; and compose.scale.yml with 1 to 5 consumers'
	@echo 'make check-servers  the main tests with Redis 6.2 to 8 and Valkey 8 and 9; make servers only fetches these'
	@echo 'make check-sdk  the packages for Python and Node: types, tests, conformance, contents'
	@echo 'make check   formatting, lints and documentation; warnings are errors'
	@echo 'make check-compose, check-kubernetes  the Compose files without an engine; the manifests against the API'
	@echo 'make check-without-tls  the programs without the feature tls'
	@echo "make fuzz    feed each parser arbitrary bytes, for FUZZ_SECONDS=$(FUZZ_SECONDS) each (cargo install cargo-fuzz)"
	@echo 'make deny    licences and known vulnerabilities of the dependencies (cargo install cargo-deny)'
	@echo 'make build   build the programs for use'
	@echo 'make install, uninstall  programs, units, manual pages, settings; as root (PREFIX=$(PREFIX) DESTDIR=)'
	@echo 'make dist    an archive with static programs, and its checksum, in dist/'
	@echo 'make deb     a Debian package of the same in dist/ (cargo install cargo-deb)'
	@echo 'make check-systemd, check-packaging  check the units; check the output of install, dist and deb'
	@echo 'make systemd-test  boot systemd in a container and test the units under load; as root'
	@echo 'make man     rewrite the manual pages and docs/SETTINGS.md after a change of a command line'
	@echo 'make book    build docs/ as a site, in target/book (cargo install mdbook)'
	@echo
	@echo 'Targets that need Redis install redis-server with the package manager if there is none.'

demo: cargo redis
	cargo build --release --locked --bins
	@cargo run --quiet --release --locked --bin oncecast -- demo $(ARGS)

chaos: cargo redis
	cargo build --release --locked --bins
	@cargo run --quiet --release --locked --bin oncecast -- chaos --report chaos-report $(ARGS)

bench: cargo redis
	cargo build --release --locked --bins
	@cargo run --quiet --release --locked --bin oncecast -- bench $(ARGS)

bench-peers: cargo redis
	@sh scripts/ensure-bullmq.sh
	cargo build --release --locked --bins
	@cargo run --quiet --release --locked --bin oncecast -- bench --kinds oncecast,streams,tidy,bullmq $(ARGS)

micro-bench: cargo
	cargo bench --locked --bench micro -- $(ARGS)

# Messages are spread evenly, so that no time is spent waiting for the next burst.
takeovers: cargo redis
	cargo build --release --locked --bins
	@for faults in '--faults kill --every 2s --duration 22s' '--faults terminate --every 2s --duration 22s' \
	    '--faults pause --every 6s --least-outage 2500ms --duration 65s'; do \
	    cargo run --quiet --release --locked --bin oncecast -- chaos --target leader $$faults --seed 1 \
	        --rate 2000 --batch 0 $(ARGS) || exit; \
	done

test: cargo redis interpreters workers
	@bash scripts/test.sh

faults: cargo redis interpreters workers
	@sh scripts/ensure-fault-tools.sh
	ONCECAST_LONG=1 cargo test --locked --test faults -- --nocapture --test-threads 2

model: cargo
	ONCECAST_LONG=1 cargo test --locked --release --test model -- --nocapture

monitoring-check: cargo redis
	@bash scripts/monitoring-check.sh

compose-test:
	@bash scripts/compose-test.sh
	@bash scripts/compose-secure-test.sh
	@bash scripts/compose-scale-test.sh

check-compose:
	@bash scripts/check-compose.sh

check-kubernetes:
	@bash scripts/check-kubernetes.sh

# A build of its own, without the TLS library.
check-without-tls: cargo
	@bash scripts/check-without-tls.sh

check: cargo
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps
	cargo test --locked --test house
	@bash scripts/check-library.sh

servers: interpreters
	@bash scripts/servers.sh

check-servers: cargo redis interpreters
	@bash scripts/check-servers.sh

# Both at once, since both wait more than they work.
check-sdk: cargo redis interpreters
	cargo build --locked --bins
	@ONCECAST_BIN=$(CURDIR)/target/debug $(MAKE) --no-print-directory --jobs 2 --output-sync check-python check-node

check-python check-node:
	@bash scripts/check-sdk-$(@:check-%=%).sh

# Coverage instrumentation is a nightly feature; this variable enables it in stable Rust.
fuzz: cargo
	@command -v cargo-fuzz >/dev/null || { echo 'cargo-fuzz is missing: cargo install cargo-fuzz' >&2; exit 1; }
	@for target in answers certificates frames handshakes ids members names pushes replies reports requests settings; do \
	    RUSTC_BOOTSTRAP=1 cargo fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 || exit 1; \
	done

# Only the database of known vulnerabilities comes from the network.
deny: cargo
	@if command -v cargo-deny >/dev/null; then \
	    cargo deny --locked --offline check licenses bans sources && cargo deny --locked check advisories; \
	    else echo 'skipped: cargo-deny is missing: cargo install cargo-deny'; fi

build: cargo
	cargo build --release --locked --bins

# Does not build the programs: builds should not run as root.
install:
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' sh scripts/install.sh install

uninstall:
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' sh scripts/install.sh uninstall

dist: cargo
	@sh scripts/dist.sh

deb: cargo-deb dist
	@sh scripts/deb.sh

cargo-deb: cargo
	@command -v cargo-deb >/dev/null || { echo 'cargo-deb is missing: cargo install cargo-deb' >&2; exit 1; }

man: cargo
	ONCECAST_WRITE_MAN=1 cargo test --locked --quiet --test integration documents::

# The pages of docs/ as a site, in target/book.
book:
	@command -v mdbook >/dev/null || { echo 'mdbook is missing: cargo install mdbook' >&2; exit 1; }
	mdbook build

check-systemd:
	@sh scripts/check-systemd.sh

check-packaging: dist
	@sh scripts/check-packaging.sh

systemd-test: dist
	@bash scripts/systemd-test.sh

cargo:
	@command -v cargo >/dev/null || { \
	    echo 'cargo is missing: install Rust from https://rustup.rs and run this again' >&2; exit 1; }

redis:
	@sh scripts/ensure-redis.sh

interpreters:
	@sh scripts/ensure-interpreters.sh

workers: interpreters
	@sh scripts/ensure-workers.sh
