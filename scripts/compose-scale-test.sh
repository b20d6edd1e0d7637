#!/usr/bin/env bash
# Tests compose.scale.yml: builds the image, starts the system with one consumer, and changes their number under load,
# 1, 5, 2, 5, by `--scale`. Each must be linked, every message must be recorded, and none twice. Prints `skipped: …` and
# exits with 0 if no container engine can run.
#
#     ONCECAST_IMAGE=oncecast:compose-test RATE=2000 scripts/compose-scale-test.sh
set -euo pipefail
cd "$(dirname "$0")/.."

RATE=${RATE:-1000}

name=compose-scale-test
files=(-f compose.scale.yml)
. scripts/containers.sh

redis_cli() {
    docker exec "$(container redis)" redis-cli "$@"
}

linked() {
    [ "$(redis_cli LLEN messages:consumers)" = "$1" ]
}

nothing_pending() {
    [ "$(redis_cli ZCARD messages:pending)" = 0 ]
}

scale() {
    compose up -d --no-recreate --scale "consumer=$1" >"$folder/up" 2>&1 || { cat "$folder/up" >&2; fail "--scale $1"; }
    await "$1 consumers to be linked" linked "$1"
    say "$1 consumers are linked"
}

ensure_engine
build
started=yes
scale 1
for service in dispatcher-0 dispatcher-1; do
    await "$service to be healthy" is_healthy "$service"
done
compose run -d --name "$project-publisher" publisher --rate "$RATE" --duration 10m >"$folder/run" 2>&1 ||
    { cat "$folder/run" >&2; fail 'the publisher did not start'; }
for count in 5 2 5; do
    scale "$count"
    before=$(redis_cli XLEN messages:processed)
    end=$((SECONDS + DEADLINE))
    until [ "$(redis_cli XLEN messages:processed)" -ge $((before + 3 * RATE)) ]; do
        [ "$SECONDS" -lt "$end" ] || fail 'the consumers record too few results'
        sleep 0.5
    done
done
docker stop --time 15 "$project-publisher" >/dev/null
say "publisher: $(docker logs "$project-publisher" 2>/dev/null | tail -n 1)"
docker rm "$project-publisher" >/dev/null
await 'nothing to be pending' nothing_pending
compose run --rm audit 2>"$folder/audit" || { cat "$folder/audit" >&2; fail 'something was lost or recorded twice'; }
[ "$(redis_cli XLEN messages:gaps)" = 0 ] || fail 'gaps were recorded'
say 'passed'
