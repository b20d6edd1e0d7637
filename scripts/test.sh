#!/usr/bin/env bash
# Runs all tests, for `make test`. Most wait for processes more than they compute, so three times as many run at a time
# as there are cores. The model only computes: it runs beside the others, with what they leave of the processor.
set -euo pipefail

cores=$(nproc)
RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((3 * cores))}
export RUST_TEST_THREADS
# Builds everything first, also what the next commands do not name.
cargo test --locked --no-run

said=$(mktemp)
# A group of its own, which ends with this script, also at Ctrl-C.
set -m
RUST_TEST_THREADS=$cores nice -n 19 cargo test --locked --test model >"$said" 2>&1 &
model=$!
set +m
# Only while it runs: later another group may have its id.
trap '[ -z "$(jobs -pr)" ] || kill -- "-$model"; rm -f "$said"' EXIT
trap 'exit 130' INT TERM
others=()
for main in tests/*/main.rs; do
    name=$(basename "$(dirname "$main")")
    [ "$name" = model ] || others+=(--test "$name")
done
cargo test --locked --lib --bins --examples "${others[@]}"
cargo test --locked --doc
wait "$model" || { cat "$said" && exit 1; }
cat "$said"
