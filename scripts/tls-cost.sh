#!/usr/bin/env bash
# What TLS costs: a burst of messages through one dispatcher and three consumers on this machine, without TLS, with TLS
# to Redis, on the links, and both, in turn. Shows the rate from the first message to the last result.
#
#     scripts/tls-cost.sh [FOLDER_OF_PROGRAMS [MESSAGES [ROUNDS]]]
set -euo pipefail
bin=$(realpath "${1:-target/release}")
messages=${2:-1000000}
rounds=${3:-3}

work=$(mktemp -d)
started=()
stop() {
    for ((at = ${#started[@]} - 1; at >= 0; at--)); do
        kill "${started[at]}" 2>/dev/null || true
        wait "${started[at]}" 2>/dev/null || true
    done
    started=()
}
trap 'stop; rm -rf "$work"' EXIT
cd "$work"

curve=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
openssl req -x509 "${curve[@]}" -days 30 -subj /CN=ca -keyout ca.key -out ca.pem 2>/dev/null
openssl req "${curve[@]}" -subj /CN=server -keyout key.pem -out server.csr 2>/dev/null
echo 'subjectAltName=IP:127.0.0.1' >names
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -days 30 -extfile names -out cert.pem 2>/dev/null
cat >redis.conf <<'CONF'
port 17001
tls-port 17002
tls-cert-file cert.pem
tls-key-file key.pem
tls-ca-cert-file ca.pem
tls-auth-clients no
save ""
client-output-buffer-limit pubsub 256mb 128mb 60
CONF

# Waits until a command prints something, at most 30 s.
await() {
    for _ in {1..1500}; do
        [[ -n $("$@" 2>/dev/null) ]] && return
        sleep 0.02
    done
    echo "tls-cost: waited 30 s for: $*" >&2
    exit 1
}

results() {
    redis-cli -p 17001 XLEN messages:processed
}

measure() {
    local redis=$1 links=$2 url scheme='' consumer=() dispatcher=()
    url=(--redis-url redis://127.0.0.1:17001)
    [[ $redis == tls ]] && url=(--redis-url rediss://127.0.0.1:17002 --redis-ca ca.pem)
    if [[ $links == tls ]]; then
        scheme=wss://
        consumer=(--tls-cert cert.pem --tls-key key.pem)
        dispatcher=(--tls-ca ca.pem)
    fi
    redis-server redis.conf >redis.log &
    started+=($!)
    await redis-cli -p 17001 PING
    for port in 17011 17012 17013; do
        "$bin/oncecast-consumer" "${url[@]}" "${consumer[@]}" --listen "127.0.0.1:$port" >"$port.log" 2>&1 &
        started+=($!)
    done
    "$bin/oncecast-dispatcher" "${url[@]}" "${dispatcher[@]}" --ring-bytes 268435456 \
        --consumers "${scheme}127.0.0.1:17011,${scheme}127.0.0.1:17012,${scheme}127.0.0.1:17013" >dispatcher.log 2>&1 &
    started+=($!)
    await sh -c 'test "$(grep -c event=consumer-linked dispatcher.log)" -ge 3 && echo yes'
    local begin=$EPOCHREALTIME
    "$bin/oncecast-publisher" --redis-url redis://127.0.0.1:17001 --count "$messages" --rate 100000000 \
        >publisher.log 2>&1
    await sh -c "test \$(redis-cli -p 17001 XLEN messages:processed) -ge $messages && echo yes"
    awk -v n="$messages" -v from="$begin" -v to="$EPOCHREALTIME" -v redis="$redis" -v links="$links" \
        'BEGIN { printf "Redis %-5s  links %-5s  %d messages/s\n", redis, links, n / (to - from) }'
    [[ $(results) == "$messages" ]] || { echo "tls-cost: $(results) results of $messages messages" >&2; exit 1; }
    stop
}

for ((round = 0; round < rounds; round++)); do
    measure plain plain
    measure tls plain
    measure plain tls
    measure tls tls
done
