#!/usr/bin/env bash
# Tests compose.yml: builds the image, starts the system, publishes, and meanwhile stops, kills or crashes dispatchers
# and consumers at random, as Pumba does, and starts them again. At the end every message must be recorded, and none
# twice. Prints `skipped: …` and exits with 0 if no container engine can run.
#
#     SEED=7 DURATION=120 EVERY=5 PUBLISH='--batch 10000' scripts/compose-test.sh
#
# Each fault waits until the group has recovered from the last one: with both dispatchers down there is no guarantee.
set -euo pipefail
cd "$(dirname "$0")/.."

SEED=${SEED:-$RANDOM}
# How long and how to publish, and the seconds from one fault to the next. A fault waits until the group has recovered.
DURATION=${DURATION:-60}
PUBLISH=${PUBLISH:---rate 5000}
EVERY=${EVERY:-3}
# How long any wait may take, in seconds.
DEADLINE=90
MAX_IMAGE_BYTES=25000000

dispatchers=(dispatcher-0 dispatcher-1)
consumers=(consumer-0 consumer-1 consumer-2)
targets=("${dispatchers[@]}" "${consumers[@]}")
folder=$(mktemp -d)
engine=
started=

say() {
    echo "compose-test: $*"
}

skip() {
    echo "skipped: compose-test: $*"
    exit 0
}

fail() {
    echo "compose-test: FAILED: $*" >&2
    exit 1
}

# Compose v2 is part of docker; v1 is a separate program.
compose() {
    if docker compose version >/dev/null 2>&1; then
        docker compose -p "$project" "$@"
    else
        docker-compose -p "$project" "$@"
    fi
}

clean_up() {
    local code=$?
    trap - EXIT
    if [ -n "$started" ]; then
        if [ "$code" -ne 0 ]; then
            compose logs --tail 30 >&2 || true
        fi
        compose --profile load --profile audit down -v --timeout 5 >"$folder/down" 2>&1 || cat "$folder/down" >&2
    fi
    if [ -n "$engine" ]; then
        kill "$engine" || true
        wait "$engine" || true
    fi
    rm -rf "$folder"
    exit "$code"
}
trap clean_up EXIT
trap 'exit 1' INT TERM

# Repeats the command until it succeeds.
await() {
    local what=$1 end=$((SECONDS + DEADLINE))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || fail "waited $DEADLINE s for $what"
        sleep 0.1
    done
}

container() {
    compose ps -q "$1" | head -n 1
}

# Starts a container engine for the time of this test if none runs.
ensure_engine() {
    local root
    [ "$(id -u)" -eq 0 ] && root=yes || root=
    if ! command -v docker >/dev/null || ! { docker compose version || docker-compose version; } >/dev/null 2>&1; then
        if [ -z "$root" ] || ! command -v apt-get >/dev/null; then
            skip 'docker or docker compose is missing'
        fi
        install_docker
    elif ! docker info >/dev/null 2>&1 && [ -n "$root" ] && ! command -v dockerd >/dev/null &&
        command -v apt-get >/dev/null; then
        install_docker
    fi
    docker info >/dev/null 2>&1 && return
    [ -n "$root" ] || skip 'no Docker engine answers, and only root could start one'
    command -v dockerd >/dev/null || skip 'no Docker engine answers, and there is no dockerd'
    say 'starting an engine for this test'
    # The engine leaves the host's packet filter and networks alone: the containers only need to reach each other.
    dockerd --iptables=false --bridge=none --pidfile "$folder/dockerd.pid" >"$folder/dockerd.log" 2>&1 &
    engine=$!
    local end=$((SECONDS + DEADLINE))
    until docker info >/dev/null 2>&1; do
        if ! kill -0 "$engine" 2>/dev/null || [ "$SECONDS" -ge "$end" ]; then
            skip "no Docker engine can run here: $(tail -n 1 "$folder/dockerd.log")"
        fi
        sleep 0.2
    done
}

install_docker() {
    say 'installing docker.io and docker-compose'
    apt-get update >"$folder/apt" 2>&1 || say 'apt-get update failed, continuing with the known package lists'
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends docker.io docker-compose iptables \
        >>"$folder/apt" 2>&1 || skip "docker.io and docker-compose can't be installed: $(tail -n 1 "$folder/apt")"
}

# The official image if it is here or can be pulled, otherwise a stand-in.
image_or_stand_in() {
    if docker image inspect "$1" >/dev/null 2>&1 || timeout 300 docker pull --quiet "$1" >"$folder/pull" 2>&1; then
        echo "$1"
    else
        say "can't pull $1 ($(tail -n 1 "$folder/pull")), building a stand-in" >&2
        scripts/stand-in-images.sh "$2" 2>"$folder/stand-in" | tail -n 1 ||
            { tail -n 5 "$folder/stand-in" >&2; return 1; }
    fi
}

build() {
    export RUST_IMAGE REDIS_IMAGE ONCECAST_IMAGE=oncecast:compose-test
    RUST_IMAGE=$(image_or_stand_in rust:1-slim-bookworm rust) || skip 'there is no image to build with'
    REDIS_IMAGE=$(image_or_stand_in redis:8-alpine redis) || skip 'there is no image of Redis'
    say "building the image on $RUST_IMAGE"
    # The host's network, since the engine started here gives containers no access to other networks.
    docker build --network host -f docker/Dockerfile --build-arg RUST_IMAGE="$RUST_IMAGE" -t "$ONCECAST_IMAGE" . \
        >"$folder/build" 2>&1 || { tail -n 30 "$folder/build" >&2; fail 'the image could not be built'; }
    local bytes user
    bytes=$(docker image inspect --format '{{.Size}}' "$ONCECAST_IMAGE")
    user=$(docker image inspect --format '{{.Config.User}}' "$ONCECAST_IMAGE")
    say "the image has $bytes bytes and runs as $user"
    [ "$bytes" -lt "$MAX_IMAGE_BYTES" ] || fail "the image is larger than $MAX_IMAGE_BYTES bytes"
    [[ "$user" =~ ^[1-9][0-9]*: ]] || fail 'the image runs as root'
    for program in oncecast oncecast-dispatcher oncecast-consumer oncecast-publisher; do
        docker run --rm --network none --read-only "$ONCECAST_IMAGE" "$program" --version >/dev/null ||
            fail "$program is not in the image"
    done
}

# Whether each dispatcher leads or could take over, and each consumer can record results.
has_recovered() {
    local target
    for target in "${targets[@]}"; do
        timeout 10 docker exec "${id[$target]}" "oncecast-${target%-*}" healthcheck || return 1
    done
}

is_healthy() {
    [ "$(docker inspect --format '{{.State.Health.Status}}' "$(container "$1")")" = healthy ]
}

redis_cli() {
    docker exec "$(container redis)" redis-cli "$@"
}

nothing_pending() {
    [ "$(redis_cli ZCARD messages:pending)" = 0 ]
}

is_running() {
    [ "$(docker inspect --format '{{.State.Running}}' "$1")" = true ]
}

# The process id on this machine of the program in a container, if it is visible.
process() {
    local pid
    pid=$(docker top "$1" -eo pid,comm 2>/dev/null | awk '$2 ~ /^oncecast/ { print $1; exit }')
    # With an engine in a virtual machine the id belongs to another process here, or to none.
    grep -qs '^oncecast' "/proc/$pid/comm" && echo "$pid"
}

# Stops, kills or crashes a dispatcher or a consumer, waits for a while and starts it again.
inject_fault() {
    local targets=("${dispatchers[@]}") target leader crashing away=$((RANDOM % 20))
    [ $((RANDOM % 2)) -eq 0 ] || targets=("${consumers[@]}")
    target=${targets[RANDOM % ${#targets[@]}]}
    leader=$(redis_cli GET messages:leader | cut -d' ' -f1)
    [[ "$leader" == "$target"-* ]] && leader=' (leader)' || leader=
    local at="$((SECONDS - begin)) s: $target$leader" back="for $((away / 10)).$((away % 10)) s"
    case $((RANDOM % 3)) in
    0)
        say "$at is stopped $back"
        docker stop --time 15 "${id[$target]}" >/dev/null
        local code
        code=$(docker inspect --format '{{.State.ExitCode}}' "${id[$target]}")
        [ "$code" = 0 ] || fail "$target was stopped and exited with $code"
        ;;
    1)
        if [ "$(id -u)" -eq 0 ] && crashing=$(process "${id[$target]}"); then
            say "$at crashes; its restart policy brings it back"
            kill -KILL "$crashing"
            await "$target to be another process" is_another_process "$target" "$crashing"
            await 'the group to recover' has_recovered
            return
        fi
        ;;&
    *)
        say "$at is killed $back"
        docker kill "${id[$target]}" >/dev/null
        ;;
    esac
    sleep "$((away / 10)).$((away % 10))"
    docker start "${id[$target]}" >/dev/null
    await 'the group to recover' has_recovered
}

is_another_process() {
    local now
    now=$(process "${id[$1]}") && [ "$now" != "$2" ]
}

ensure_engine
project=oncecast-test-$$
build

# Any free ports: this test does not use them.
export REDIS_PORT=0 STATUS_PORT=0 STANDBY_STATUS_PORT=0
started=yes
compose up -d >"$folder/up" 2>&1 || { cat "$folder/up" >&2; fail 'compose up'; }
declare -A id
for target in "${targets[@]}"; do
    id[$target]=$(container "$target")
done
for service in redis "${targets[@]}"; do
    await "$service to be healthy" is_healthy "$service"
done
say "all are healthy; publishing for $DURATION s with $PUBLISH, SEED=$SEED"

# Several words.
# shellcheck disable=SC2086
compose run -d --name "$project-publisher" publisher oncecast-publisher $PUBLISH --duration "${DURATION}s" \
    --ids-file /data/ids.txt >"$folder/run" 2>&1 || { cat "$folder/run" >&2; fail 'the publisher did not start'; }
RANDOM=$SEED
begin=$SECONDS
faults=0
next=$begin
while [ $((SECONDS - begin + EVERY)) -lt "$DURATION" ]; do
    next=$((next + EVERY))
    while [ "$SECONDS" -lt "$next" ]; do sleep 0.2; done
    inject_fault
    faults=$((faults + 1))
done
[ "$faults" -gt 0 ] || fail 'no fault was injected'

publisher_ended() {
    ! is_running "$project-publisher"
}
await 'the publisher to end' publisher_ended
summary=$(docker logs "$project-publisher" 2>/dev/null | tail -n 1)
say "publisher: $summary"
[ "$(docker inspect --format '{{.State.ExitCode}}' "$project-publisher")" = 0 ] || fail 'the publisher failed'
docker rm "$project-publisher" >/dev/null
await 'nothing to be pending' nothing_pending
[[ "$summary" =~ published=([1-9][0-9]*) ]] || fail 'nothing was published'
results=$(redis_cli XLEN messages:processed)
[ "$results" = "${BASH_REMATCH[1]}" ] || fail "there are $results results"

say "audit, after $faults faults:"
compose run --rm audit 2>"$folder/audit" || { cat "$folder/audit" >&2; fail 'something was lost or recorded twice'; }
[ "$(redis_cli XLEN messages:gaps)" = 0 ] || fail "gaps were recorded: $(redis_cli XRANGE messages:gaps - +)"
say "passed"
