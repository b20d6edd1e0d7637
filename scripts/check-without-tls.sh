#!/usr/bin/env bash
# Builds the programs without the feature `tls` and checks that they need no TLS library, and that they refuse each
# setting that asks for TLS with exit code 2 and one line that says so (the usage may follow).
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "check-without-tls: $*" >&2
    exit 1
}

# Beside the library's check, which has built most of it without TLS.
export CARGO_TARGET_DIR=$PWD/target/library
features=(--locked --no-default-features --features programs)
tree=$(cargo tree "${features[@]}" --edges normal,build --prefix none)
! grep -E '^(rustls|ring) ' <<<"$tree" || fail 'they need a TLS library'
cargo build --quiet "${features[@]}" --bins

# refuses SETTING PROGRAM ARGUMENT…: the program names the setting.
refuses() {
    local setting=$1 said code=0
    shift
    said=$(env -i "$CARGO_TARGET_DIR/debug/$1" "${@:2}" 2>&1) || code=$?
    [ "$code" = 2 ] || fail "$* ended with $code: $said"
    # The backquotes are part of the text.
    # shellcheck disable=SC2016
    [[ ${said%%$'\n'*} == *"$setting"*'feature `tls`'* ]] || fail "$* does not say why: $said"
}

# Never reached. The files need not exist.
redis=rediss://127.0.0.1:1
refuses --redis-url oncecast-dispatcher --consumers 127.0.0.1:2 --redis-url "$redis"
refuses --redis-url oncecast-consumer --listen 127.0.0.1:0 --redis-url "$redis"
refuses --redis-url oncecast-publisher --redis-url "$redis"
for command in status audit doctor; do refuses --redis-url oncecast "$command" --redis-url "$redis"; done
refuses --consumers oncecast-dispatcher --consumers wss://127.0.0.1:2
refuses --tls-cert oncecast-consumer --listen 127.0.0.1:0 --tls-cert a.pem --tls-key a.key
echo 'without the feature tls the programs build and refuse what needs it'
