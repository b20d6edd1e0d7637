#!/usr/bin/env bash
# Checks the library as other crates use it, without default features: how many packages it pulls in, that it has no
# warnings, that its unit tests pass, that its documentation shows the public items and nothing else, and that a program
# outside this package builds with it and runs.
set -euo pipefail
cd "$(dirname "$0")/.."

MOST_PACKAGES=60
# What `cargo doc` shows.
PUBLIC='enum.Error
struct.Consumer
struct.ConsumerBuilder
struct.ConsumerStats
struct.Delivery
struct.HandlerError
struct.MessageId
struct.Outcome
struct.ShutdownHandle
trait.Handler'

# Those that need a Redis belong to the programs' tests. Built where the other tests are, with their dependencies.
cargo test --locked --quiet --lib --no-default-features

export CARGO_TARGET_DIR=$PWD/target/library

fail() {
    echo "check-library: $*" >&2
    exit 1
}

count=$(cargo tree --locked --no-default-features --edges normal,build --prefix none --no-dedupe | sort -u | wc -l)
echo "the library and its dependencies are $count packages, at most $MOST_PACKAGES"
((count <= MOST_PACKAGES)) || fail 'too many; cargo tree --no-default-features shows where they come from'

for features in '' signals signals,tls; do
    cargo clippy --locked --quiet --lib --no-default-features --features "$features" -- -D warnings
done
RUSTDOCFLAGS=-Dwarnings cargo doc --locked --quiet --lib --no-default-features --features signals --no-deps
shown=$(grep -o 'href="[a-z]*\.[A-Za-z]*\.html"' "$CARGO_TARGET_DIR/doc/oncecast/all.html" \
    | sed 's/href="//; s/\.html"//' | sort -u)
[[ $shown == "$PUBLIC" ]] || fail "the documentation does not show exactly the public items:
$(diff <(echo "$PUBLIC") <(echo "$shown"))"

cargo build --locked --quiet --manifest-path examples/embedded/Cargo.toml
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Needs no Redis to start and to stop.
ONCECAST_REDIS_URL=redis://127.0.0.1:1 ONCECAST_LISTEN=127.0.0.1:0 "$CARGO_TARGET_DIR/debug/embedded" 2>"$log" &
embedded=$!
for _ in {1..100}; do
    grep -q 'event=listening' "$log" && break
    sleep 0.1
done
kill -TERM "$embedded"
wait "$embedded" || fail "the embedded consumer did not stop cleanly: $(cat "$log")"
grep -q 'event=stopped' "$log" || fail "the embedded consumer did not log its end: $(cat "$log")"
echo 'the embedded consumer builds, runs and stops'
