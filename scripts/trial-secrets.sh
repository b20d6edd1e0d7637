#!/usr/bin/env bash
# Makes the files that compose.secure.yml needs, to try it: authorities, certificates that are valid for 30 days, Redis
# users with passwords, a link secret and a token. Changes no file that is there: to renew one, remove it first.
#
#     scripts/trial-secrets.sh [FOLDER]        by default secrets/
#
# Needs openssl. The folder can be entered by you alone. The files in it can be read by all, because the programs run as
# other users than you, and Compose mounts each file with the mode that it has here.
set -euo pipefail
cd "$(dirname "$0")/.."

DAYS=${DAYS:-30}
operations=$PWD/docs/OPERATIONS.md
prometheus=$PWD/docker/prometheus/prometheus.yml
mkdir -p "${1:-secrets}"
cd "${1:-secrets}"
chmod 700 .
umask 022

command -v openssl >/dev/null || {
    echo 'trial-secrets: openssl is missing: install it with the package manager' >&2
    exit 1
}

# Quiet unless it fails.
openssl() {
    local said
    said=$(command openssl "$@" 2>&1 >&3) || { echo "$said" >&2; return 1; }
} 3>&1

# authority NAME: NAME.pem and NAME.key.
authority() {
    [ -e "$1.pem" ] ||
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days "$DAYS" -subj "/CN=trial $1" \
            -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign' \
            -keyout "$1.key" -out "$1.pem"
}

# certificate NAME AUTHORITY HOST…: NAME.pem and NAME.key, for these host names.
certificate() {
    local name=$1 authority=$2
    shift 2
    [ -e "$name.pem" ] && return
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" \
        -keyout "$name.key" -out "$name.csr"
    openssl x509 -req -in "$name.csr" -CA "$authority.pem" -CAkey "$authority.key" -CAcreateserial -days "$DAYS" \
        -extfile <(echo "subjectAltName=$(printf 'DNS:%s\n' "$@" | paste -sd,)") -out "$name.pem"
    rm "$name.csr"
    chmod 644 "$name.key"
}

random() {
    command openssl rand -hex 24
}

authority ca
authority dispatchers-ca
certificate redis ca redis localhost
certificate consumer ca consumer-0 consumer-1 consumer-2 localhost
certificate dispatcher dispatchers-ca dispatcher-0 dispatcher-1

# The rights are those of docs/OPERATIONS.md. Redis gets a hash of each password. Without a login only PING is allowed,
# for the health check.
if ! [ -e redis-users.acl ]; then
    # Backquotes of Markdown.
    # shellcheck disable=SC2016
    users=$(sed -n '/^```acl$/,/^```$/ s/^ACL SETUSER/user/p' "$operations")
    users+=$'\nuser default reset on nopass resetchannels +ping'
    for who in dispatcher consumer publisher operator; do
        password=$(random)
        hash=$(printf %s "$password" | sha256sum | cut -d' ' -f1)
        users=${users/>secret-of-${who}s/#$hash}
        echo "rediss://oncecast-$who:$password@redis:6379" >"$who-redis-url"
    done
    echo "$users" >redis-users.acl
fi
[ -e link-secret ] || random >link-secret
[ -e metrics-token ] || random >metrics-token
[ -e prometheus-token ] || cp metrics-token prometheus-token
[ -e prometheus.yml ] ||
    sed -e 's#- alerts.yml#- /etc/prometheus/alerts.yml#' \
        -e 's#^  - job_name: .*#&\n    authorization: { credentials_file: /run/secrets/prometheus-token }#' \
        "$prometheus" >prometheus.yml
echo "the secrets are in $PWD"
