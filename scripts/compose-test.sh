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

name=compose-test
files=(-f compose.yml)
. scripts/containers.sh

dispatchers=(dispatcher-0 dispatcher-1)
consumers=(consumer-0 consumer-1 consumer-2)
targets=("${dispatchers[@]}" "${consumers[@]}")

# Whether each dispatcher leads or could take over, and each consumer can record results.
has_recovered() {
    local target
    for target in "${targets[@]}"; do
        timeout 10 docker exec "${id[$target]}" "oncecast-${target%-*}" healthcheck || return 1
    done
}

redis_cli() {
    docker exec "$(container redis)" redis-cli "$@"
}

nothing_pending() {
    [ "$(redis_cli ZCARD messages:pending)" = 0 ]
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
