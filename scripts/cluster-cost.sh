#!/usr/bin/env bash
# What a published message costs in a Redis Cluster: CPU of the node that takes it and of every other node, and bytes on
# the cluster bus, for PUBLISH and SPUBLISH, with 1, 3 and 6 primaries and no replicas on this machine. Two subscribers,
# as two dispatchers have, are on one node. CPU time is that of the processes, so other work on the machine matters
# little; rates are not measured.
#
#     scripts/cluster-cost.sh [MESSAGES [PAYLOAD_BYTES [NODES...]]]
#
# Needs redis-server, redis-cli and redis-benchmark 7.0 or newer, and ss. Uses ports 17100 and up, and 27100 and up.
set -euo pipefail
messages=${1:-500000}
payload=$(printf '%*s' "${2:-53}" '' | tr ' ' x)
shift $(($# < 2 ? $# : 2))
counts=("$@")
((${#counts[@]})) || counts=(1 3 6)
first=17100
channel=messages

work=$(mktemp -d)
servers=()
others=()
stop() {
    for pid in "${others[@]}" "${servers[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    servers=()
    others=()
}
trap 'stop; rm -rf "$work"' EXIT

# Waits until a command succeeds, at most 30 s.
await() {
    for _ in {1..1500}; do
        "$@" >/dev/null 2>&1 && return
        sleep 0.02
    done
    echo "cluster-cost: waited 30 s for: $*" >&2
    exit 1
}

is_formed() {
    local port
    for ((port = first; port < first + $1; port++)); do
        redis-cli -p "$port" CLUSTER INFO | tr -d '\r' | grep -qx "cluster_known_nodes:$1" || return 1
        redis-cli -p "$port" CLUSTER INFO | tr -d '\r' | grep -qx cluster_state:ok || return 1
    done
}

form() {
    local nodes=$1 node port from to
    for ((node = 0; node < nodes; node++)); do
        mkdir -p "$work/$nodes/$node"
        redis-server --port $((first + node)) --cluster-enabled yes --cluster-node-timeout 15000 --save '' \
            --client-output-buffer-limit 'pubsub 0 0 0' --dir "$work/$nodes/$node" >"$work/$nodes/$node/log" &
        servers+=($!)
    done
    for ((node = 0; node < nodes; node++)); do
        port=$((first + node))
        await redis-cli -p "$port" PING
        from=$((16384 * node / nodes))
        to=$((16384 * (node + 1) / nodes - 1))
        redis-cli -p "$port" CLUSTER ADDSLOTSRANGE "$from" "$to" >/dev/null
        redis-cli -p "$port" CLUSTER SET-CONFIG-EPOCH $((node + 1)) >/dev/null
        redis-cli -p "$first" CLUSTER MEET 127.0.0.1 "$port" >/dev/null
    done
    await is_formed "$nodes"
}

# The CPU time of a process in ms.
cpu_ms() {
    awk '{ print ($14 + $15) * 10 }' "/proc/$1/stat"
}

# What a node has sent to the bus ports of others, in bytes.
bus_bytes() {
    ss -tinpH "( dport >= :$((first + 10000)) and dport < :$((first + 10100)) )" |
        awk -v pid="pid=$1," 'index($0, pid) { mine = 1; next } mine { if (match($0, /bytes_sent:[0-9]+/))
            sum += substr($0, RSTART + 11, RLENGTH - 11); mine = 0 } END { printf "%.0f", sum }'
}

subscribed() {
    # shellcheck disable=SC2086
    [[ $(redis-cli -p "$1" $3 "$2" | tail -1) == 2 ]]
}

# measure NODES COMMAND SUBSCRIBE COUNT TAKER OWNER: messages sent to TAKER, subscribers at OWNER.
measure() {
    local nodes=$1 command=$2 subscribe=$3 count=$4 taker=$5 owner=$6 node before=() took=() sent
    for _ in 1 2; do
        (exec 3<>"/dev/tcp/127.0.0.1/$((first + owner))" && printf '%s %s\r\n' "$subscribe" "$channel" >&3 &&
            exec cat <&3 >/dev/null) &
        others+=($!)
    done
    # shellcheck disable=SC2086
    await subscribed $((first + owner)) "$channel" "$count"
    for ((node = 0; node < nodes; node++)); do
        before+=("$(cpu_ms "${servers[node]}")")
    done
    sent=$(bus_bytes "${servers[taker]}")
    redis-benchmark -p $((first + taker)) -c 1 -P 100 -n "$messages" -q "$command" "$channel" "$payload" >/dev/null
    # The bus is asynchronous: wait until the others are done, too.
    local last=-1 now=0
    while [[ $now != "$last" ]]; do
        sleep 0.5
        last=$now
        now=0
        for ((node = 0; node < nodes; node++)); do
            now=$((now + $(cpu_ms "${servers[node]}") / 50))
        done
    done
    sent=$(($(bus_bytes "${servers[taker]}") - sent))
    for ((node = 0; node < nodes; node++)); do
        took+=($(($(cpu_ms "${servers[node]}") - before[node])))
    done
    awk -v n="$messages" -v nodes="$nodes" -v command="$command" -v taker="$taker" -v owner="$owner" -v sent="$sent" \
        -v took="${took[*]}" 'BEGIN {
            split(took, of, " ")
            for (i = 1; i <= nodes; i++) if (i != taker + 1) rest += of[i]
            printf "%d nodes  %-8s at %-14s  %.2f us at that node  %.2f us at each other node  %.0f bytes on the bus\n",
                nodes, command, (taker == owner ? "the subscribers" : "another node"),
                of[taker + 1] * 1000 / n, (nodes > 1 ? rest * 1000 / n / (nodes - 1) : 0), sent / n
        }'
    for pid in "${others[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    others=()
}

for nodes in "${counts[@]}"; do
    form "$nodes"
    slot=$(redis-cli -p "$first" CLUSTER KEYSLOT "$channel")
    owner=0
    while ((slot >= 16384 * (owner + 1) / nodes)); do
        owner=$((owner + 1))
    done
    measure "$nodes" SPUBLISH SSUBSCRIBE 'PUBSUB SHARDNUMSUB' "$owner" "$owner"
    measure "$nodes" PUBLISH SUBSCRIBE 'PUBSUB NUMSUB' "$owner" "$owner"
    ((nodes == 1)) || measure "$nodes" PUBLISH SUBSCRIBE 'PUBSUB NUMSUB' $(((owner + 1) % nodes)) "$owner"
    stop
done
