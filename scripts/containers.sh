# Functions of the scripts that run compose.yml: they start an engine if none runs, build the image, and wait. To be
# sourced by bash with `set -euo pipefail`, from the root of the repository. Expects `name`, the script's name, and
# `files`, the options of Compose that name its files. Sets `folder`, for temporary files, and `project`.
# shellcheck shell=bash disable=SC2154

# How long any wait may take, in seconds.
DEADLINE=90
MAX_IMAGE_BYTES=${MAX_IMAGE_BYTES:-25000000}

folder=$(mktemp -d)
project=oncecast-test-$$
engine=
started=

say() {
    echo "$name: $*"
}

skip() {
    echo "skipped: $name: $*"
    exit 0
}

fail() {
    echo "$name: FAILED: $*" >&2
    exit 1
}

# Compose v2 is part of docker; v1 is a separate program.
compose() {
    if docker compose version >/dev/null 2>&1; then
        docker compose -p "$project" "${files[@]}" "$@"
    else
        docker-compose -p "$project" "${files[@]}" "$@"
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

# Builds the image, unless ONCECAST_IMAGE names one that is here, and checks it.
build() {
    export RUST_IMAGE REDIS_IMAGE ONCECAST_IMAGE=${ONCECAST_IMAGE:-}
    REDIS_IMAGE=$(image_or_stand_in redis:8-alpine redis) || skip 'there is no image of Redis'
    if [ -z "$ONCECAST_IMAGE" ]; then
        ONCECAST_IMAGE=oncecast:compose-test
        RUST_IMAGE=$(image_or_stand_in rust:1-slim-bookworm rust) || skip 'there is no image to build with'
        say "building the image on $RUST_IMAGE"
        # The host's network, since the engine started here gives containers no access to other networks.
        docker build --network host -f docker/Dockerfile --build-arg RUST_IMAGE="$RUST_IMAGE" -t "$ONCECAST_IMAGE" . \
            >"$folder/build" 2>&1 || { tail -n 30 "$folder/build" >&2; fail 'the image could not be built'; }
    fi
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

is_healthy() {
    [ "$(docker inspect --format '{{.State.Health.Status}}' "$(container "$1")")" = healthy ]
}

is_running() {
    [ "$(docker inspect --format '{{.State.Running}}' "$1")" = true ]
}

