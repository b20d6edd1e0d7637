#!/usr/bin/env bash
# Checks the Compose files without an engine: Compose accepts them, scripts/trial-secrets.sh makes each
# file that they name, each secret that a setting names is given to its service, and no secret is in the configuration.
# Without Compose or openssl the check is skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "check-compose: $*" >&2
    exit 1
}

if docker compose version >/dev/null 2>&1; then
    compose=(docker compose)
elif command -v docker-compose >/dev/null; then
    compose=(docker-compose)
else
    echo 'SKIPPED: compose.yml is not checked, docker compose is missing'
    exit 0
fi
command -v openssl >/dev/null || {
    echo 'SKIPPED: compose.secure.yml is not checked, openssl is missing'
    exit 0
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export SECRETS=$work/secrets
scripts/trial-secrets.sh "$SECRETS" >/dev/null
profiles=(--profile load --profile audit --profile monitoring --profile chaos)
"${compose[@]}" -f compose.yml "${profiles[@]}" config >/dev/null || fail 'compose.yml is refused'
"${compose[@]}" -f compose.scale.yml "${profiles[@]}" config >/dev/null || fail 'compose.scale.yml is refused'
"${compose[@]}" -f compose.yml -f compose.secure.yml "${profiles[@]}" config >"$work/config" ||
    fail 'compose.secure.yml is refused'

while read -r file; do
    [ -s "$file" ] || fail "scripts/trial-secrets.sh does not make $file"
done < <(sed -n "s#^ *file: \($SECRETS/.*\)#\1#p" "$work/config")
for file in "$SECRETS"/*.pem; do
    openssl x509 -in "$file" -noout -checkend 86400 >/dev/null || fail "$file is no valid certificate"
done
openssl verify -CAfile "$SECRETS/ca.pem" "$SECRETS/redis.pem" "$SECRETS/consumer.pem" >/dev/null
openssl verify -CAfile "$SECRETS/dispatchers-ca.pem" "$SECRETS/dispatcher.pem" >/dev/null

# Of each service: the secrets that it is given, and those that its settings, command and health check name.
awk '
    /^services:/ { inside = 1; next }
    /^[^ ]/ { inside = 0 }
    inside && /^  [^ ]/ { service = $1 }
    inside && /(- |source: )[a-z.-]+$/ { given[service $NF] }
    inside { while (match($0, /\/run\/secrets\/[a-z.-]+/)) {
        named[service " " substr($0, RSTART + 13, RLENGTH - 13)]; $0 = substr($0, RSTART + RLENGTH) } }
    END { for (name in named) { split(name, part, " "); if (!((part[1] part[2]) in given)) print name } }
' "$work/config" >"$work/missing"
[ ! -s "$work/missing" ] || fail "secrets that a service names and is not given: $(cat "$work/missing")"

for file in "$SECRETS"/*-redis-url "$SECRETS"/link-secret "$SECRETS"/metrics-token; do
    ! grep -qF "$(sed 's#.*:\(.*\)@.*#\1#' "$file")" "$work/config" || fail "the configuration shows $file"
done
echo 'compose.yml and compose.secure.yml are accepted, and each service has the secrets that it names'
