#!/usr/bin/env bash
# Tests compose.secure.yml with trial secrets: Redis and the links use TLS, users have only their rights, strangers are
# refused, no secret is in the environment of a container, and every message is recorded once while the leader is
# restarted, the token and the link secret are replaced, and a certificate is renewed, all without a restart. Prints
# `skipped: …` and exits with 0 if no container engine can run.
#
#     ONCECAST_IMAGE=oncecast:latest scripts/compose-secure-test.sh        with an image that is here
set -euo pipefail
cd "$(dirname "$0")/.."

name=compose-secure-test
files=(-f compose.yml -f compose.secure.yml)
. scripts/containers.sh
command -v openssl >/dev/null || skip 'openssl is missing'

export SECRETS=$folder/secrets
services=(redis dispatcher-0 dispatcher-1 consumer-0 consumer-1 consumer-2)

# As an operator.
oncecast() {
    compose run --rm audit oncecast "$@"
}

redis_cli() {
    docker exec "${id[redis]}" redis-cli --tls --cacert /run/secrets/ca.pem "$@"
}

as_operator() {
    redis_cli --no-auth-warning -u "$(cat "$SECRETS/operator-redis-url")" "$@"
}

# Into the file, not in its place: a container has the file itself, and would keep the old one.
replace() {
    cat >"$SECRETS/$1"
}

# A new certificate of the same names, and its key.
renew() {
    mkdir "$folder/new"
    cp -p "$SECRETS"/* "$folder/new"
    rm "$folder/new/$1.pem"
    scripts/trial-secrets.sh "$folder/new" >/dev/null
    replace "$1.pem" <"$folder/new/$1.pem"
    replace "$1.key" <"$folder/new/$1.key"
}

# The status of a request to dispatcher-0's metrics with this token.
metrics_status() {
    local port answer
    port=$(compose port dispatcher-0 9464)
    exec 9<>"/dev/tcp/127.0.0.1/${port##*:}"
    printf 'GET /metrics HTTP/1.0\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\n\r\n' "$1" >&9
    read -r answer <&9
    exec 9<&- 9>&-
    echo "${answer:9:3}"
}
status_is() {
    [ "$(metrics_status "$1")" = "$2" ]
}

log_has() {
    grep -q "$2" <<<"$(docker logs "${id[$1]}" 2>&1)"
}

all_are_healthy() {
    [ "$(docker inspect --format '{{.State.Health.Status}}' "${id[@]}" | sort -u)" = healthy ]
}
is_well() {
    oncecast status >"$folder/status" 2>&1 && grep -q 'standby, in sync' "$folder/status"
}
restart_leader() {
    local leader
    leader=$(as_operator get messages:leader)
    leader=${leader%% *}
    [ -n "$leader" ] || fail 'nobody leads'
    # Its id is the service and a random suffix.
    docker restart --time 15 "${id[${leader%-*}]}" >/dev/null
    await 'the group to be well' is_well
    say "${leader%-*} led and was restarted"
}

ensure_engine
build

scripts/trial-secrets.sh "$SECRETS" >/dev/null
export REDIS_PORT=0 STATUS_PORT=0 STANDBY_STATUS_PORT=0
started=yes
compose up -d >"$folder/up" 2>&1 || { cat "$folder/up" >&2; fail 'compose up'; }
declare -A id
for service in "${services[@]}"; do
    id[$service]=$(container "$service")
done
await 'all to be healthy' all_are_healthy
await 'the group to be well' is_well
say 'all are healthy'

say 'no secret is in the configuration or in a container'
shown=$(compose config && docker inspect "${id[@]}")
for file in link-secret metrics-token consumer-redis-url dispatcher-redis-url; do
    secret=$(sed 's#.*:\(.*\)@.*#\1#' "$SECRETS/$file")
    [[ "$shown" != *"$secret"* ]] || fail "$file is visible"
done

say 'strangers are refused'
[[ $(docker exec "${id[redis]}" redis-cli ping 2>&1) != PONG ]] || fail 'Redis answers without TLS'
[[ $(redis_cli get messages:leader 2>&1) == NOPERM* ]] || fail 'Redis answers without a login'
# Programs in a dispatcher's container without some of its secrets.
without() {
    docker exec -e ONCECAST_TLS_CERT= -e ONCECAST_TLS_KEY= -e ONCECAST_LINK_SECRET_FILE= "${id[dispatcher-0]}" \
        oncecast conform --only origin-is-refused "$1" 2>&1
}
said=$(without consumer-0:6969) && fail 'a consumer answers without TLS'
say "without TLS: $said"
said=$(without wss://consumer-0:6969) && fail 'a consumer answers without a certificate'
say "without a certificate: $said"
grep -q 'requires a certificate' <<<"$said" || fail 'it is not because of the certificate'
token=$(cat "$SECRETS/metrics-token")
status_is "$token" 200 || fail "the token is refused: $(metrics_status "$token")"
status_is wrong 401 || fail "a wrong token gets $(metrics_status wrong)"

say 'publishing while secrets are replaced and the leader is restarted'
compose run -d --name "$project-publisher" publisher oncecast-publisher --rate 1000 --duration "${DURATION:-40}s" \
    --ids-file /data/ids.txt >"$folder/run" 2>&1 || { cat "$folder/run" >&2; fail 'the publisher did not start'; }

new=$(openssl rand -hex 24)
printf '%s\n%s\n' "$new" "$token" | replace metrics-token
await 'the new token' status_is "$new" 200
status_is "$token" 200 || fail 'the old token is refused too early'
echo "$new" | replace metrics-token
await 'the old token to be refused' status_is "$token" 401

old=$(cat "$SECRETS/link-secret")
new=$(openssl rand -hex 24)
printf '%s\n%s\n' "$new" "$old" | replace link-secret
renew consumer
restart_leader
for service in consumer-0 consumer-1 consumer-2; do
    log_has "$service" event=certificates-read || fail "$service does not use its new certificate"
    log_has "$service" event=link-secret-read || fail "$service does not use the new link secret"
done
echo "$new" | replace link-secret
restart_leader
log_has dispatcher-0 event=link-secret-read || log_has dispatcher-1 event=link-secret-read ||
    fail 'the leader does not use the new link secret alone'

say 'a dispatcher with a certificate and another link secret is refused'
said=$(docker exec "${id[dispatcher-0]}" oncecast conform wss://consumer-0:6969 --link-secret-file \
    /run/secrets/metrics-token 2>&1) && fail 'it is not'
say "$said"
grep -q 'link secret' <<<"$said" || fail 'it is not because of the secret'

publisher_ended() {
    ! is_running "$project-publisher"
}
await 'the publisher to end' publisher_ended
say "$(docker logs "$project-publisher" 2>/dev/null | tail -n 1)"
[ "$(docker inspect --format '{{.State.ExitCode}}' "$project-publisher")" = 0 ] || fail 'the publisher failed'
docker rm "$project-publisher" >/dev/null
nothing_pending() {
    [ "$(as_operator zcard messages:pending)" = 0 ]
}
await 'nothing to be pending' nothing_pending
compose run --rm audit 2>"$folder/audit" || { cat "$folder/audit" >&2; fail 'something was lost or recorded twice'; }
[ "$(as_operator xlen messages:gaps)" = 0 ] || fail 'there is a gap'
say 'passed'
