# What there is to do here; `make` alone lists it.

# Where rustup puts cargo, for shells that were not told.
export PATH := $(PATH):$(HOME)/.cargo/bin

# More arguments for the demonstration: make demo ARGS="--rate 10000 --duration 30s"
ARGS ?=

.PHONY: help demo test check cargo redis

help:
	@echo 'make demo    build everything and watch a cluster lose its leader (ARGS="--rate 10000 --duration 30s")'
	@echo 'make test    run all tests; those that need Redis start a private one'
	@echo 'make check   formatting, lints and documentation, warnings being errors'
	@echo
	@echo 'demo and test install redis-server with the package manager if there is none.'

demo: cargo redis
	cargo build --release --locked --bins
	@cargo run --quiet --release --locked --bin oncecast -- demo $(ARGS)

test: cargo redis
	cargo test --locked

check: cargo
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps

cargo:
	@command -v cargo >/dev/null || { \
	    echo 'cargo is missing: install Rust from https://rustup.rs and run this again' >&2; exit 1; }

redis:
	@sh scripts/ensure-redis.sh
