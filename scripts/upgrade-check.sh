#!/bin/bash
# A rolling upgrade under load, and back: programs of two versions serve one group, and each is stopped or killed in
# turn, so that either version leads beside a standby of the other and continues after its crash. At the end nothing may
# be lost, recorded twice or in a gap. Usage: upgrade-check.sh OLD_FOLDER [NEW_FOLDER], the folders of the programs;
# RATE=2000 messages per second. Needs redis-server and redis-cli.
set -euo pipefail
cd "$(dirname "$0")/.."

old=${1:?the folder with the programs of the other version}
new=${2:-${CARGO_TARGET_DIR:-target}/release}
work=$(mktemp -d)
port=$((20000 + RANDOM % 10000))
export ONCECAST_REDIS_URL=redis://127.0.0.1:$port
declare -A pids=()

finish() {
    code=$?
    [ "$code" -eq 0 ] || tail -n 5 "$work"/*.log >&2
    [ "${#pids[@]}" -eq 0 ] || kill -KILL "${pids[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT

fail() {
    echo "upgrade-check: $*" >&2
    exit 1
}

redis() {
    redis-cli -p "$port" "$@"
}

# Waits up to 20 s until a command succeeds.
await() {
    for _ in $(seq 200); do
        ! "$@" >/dev/null 2>&1 || return 0
        sleep 0.1
    done
    fail "waited in vain for: $*"
}

# The addresses of c0, c1, d0 and d1: for dispatchers, and for metrics.
listen() { echo "127.0.0.1:$((port + 1 + ${1#c}))"; }
metrics() { echo "127.0.0.1:$((port + 0x${1}))"; }

ready() { ONCECAST_METRICS_ADDR=$(metrics "$1") "$new/oncecast-dispatcher" healthcheck; }
leader() { redis GET messages:leader | cut -d - -f 1; }
leads() { [ "$(leader)" = "$1" ]; }
other() { [ "$1" = d0 ] && echo d1 || echo d0; }

# start NAME FOLDER
start() {
    case $1 in
    c*) set -- "$1" "$2/oncecast-consumer" --listen "$(listen "$1")" --consumer-id "$1" ;;
    *) set -- "$1" "$2/oncecast-dispatcher" --consumers "$(listen c0),$(listen c1)" --dispatcher-id "$1" ;;
    esac
    name=$1
    shift
    "$@" --metrics-addr "$(metrics "$name")" >>"$work/$name.log" 2>&1 &
    pids[$name]=$!
    await ready "$name"
}

# stop SIGNAL NAME
stop() {
    kill "-$1" "${pids[$2]}"
    wait "${pids[$2]}" 2>/dev/null || [ "$1" = KILL ] || fail "$2 ended with status $?"
    unset "pids[$2]"
}

# swap SIGNAL NAME FOLDER: ends a dispatcher or consumer and starts it from the folder.
swap() {
    echo "$2: ended by $1 under the leader $(leader), starts from $3"
    stop "$1" "$2"
    case $2 in d*) await leads "$(other "$2")" ;; esac
    start "$2" "$3"
    # A dispatcher needs three seconds until it holds all that the group may need of it. Then each version must find
    # the other's reports good.
    case $2 in d*)
        sleep 3.5
        for programs in "$old" "$new"; do
            status=$("$programs/oncecast" status) && ! grep 'differ in' <<<"$status" || fail "$status"
        done
        ;;
    esac
}

# roll FROM TO: everything runs from FROM, and in the end from TO.
roll() {
    swap TERM c0 "$2"
    swap KILL "$(other "$(leader)")" "$2"
    # Each version leads beside a standby of the other, and is killed.
    swap KILL "$(leader)" "$1"
    swap KILL "$(leader)" "$1"
    swap TERM "$(other "$(leader)")" "$2"
    swap TERM "$(leader)" "$2"
    swap KILL c1 "$2"
}

redis-server --port "$port" --save '' --appendonly yes --dir "$work" --maxmemory-policy noeviction \
    --client-output-buffer-limit 'pubsub 256mb 128mb 60' >"$work/redis.log" &
pids[redis]=$!
await redis PING
for name in c0 c1 d0 d1; do start "$name" "$old"; done
sleep 3.5
"$old/oncecast-publisher" --rate "${RATE:-2000}" --ids-file "$work/ids" >"$work/publisher.log" 2>&1 &
pids[publisher]=$!
roll "$old" "$new"
roll "$new" "$old"
sleep 1
stop TERM publisher

settled() { [ "$(redis ZCARD messages:pending)" = 0 ]; }
await settled
"$new/oncecast" audit --ids "$work/ids"
gaps=$(redis XLEN messages:gaps)
[ "$gaps" = 0 ] || fail "gaps: $(redis XRANGE messages:gaps - +)"
grep -h -o 'event=[a-z-]*' "$work"/[cd]?.log | sort | uniq -c | sort -rn
echo "upgrade-check: gaps 0"
