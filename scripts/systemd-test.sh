#!/bin/bash
# Boots systemd in a container, installs the archive of `make dist` there, and tests the units: they start and report
# readiness, are restarted when killed, are ended by the watchdog when they hang, and are restarted one by one under
# load. At the end nothing may be lost or recorded twice. Then they get all secrets as credentials, by the drop-ins of
# docs/OPERATIONS.md. Needs root, systemd-nspawn and debootstrap; the first time
# also a network, for a small Debian that is kept in target/. If something is missing, the test is skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
    echo "SKIPPED: the units are not tested: $*"
    exit 0
}

fail() {
    echo "systemd-test: $*" >&2
    inside journalctl --no-pager -q -o cat -n 60 -u 'oncecast-*' >&2 || true
    exit 1
}

[ "$(id -u)" -eq 0 ] || skip 'this needs root'
if command -v apt-get >/dev/null && ! { command -v systemd-nspawn && command -v debootstrap; } >/dev/null; then
    echo 'installing systemd-container and debootstrap'
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        systemd-container debootstrap >/dev/null || true
fi
for program in systemd-nspawn debootstrap nsenter; do
    command -v "$program" >/dev/null || skip "there is no $program"
done
archive=$(find dist -name 'oncecast-*-linux.tar.gz' 2>/dev/null | head -n 1)
[ -n "$archive" ] || skip 'there is no archive: make dist'

base=${CARGO_TARGET_DIR:-target}/systemd-test-base
if ! [ -e "$base/complete" ]; then
    echo 'installing a small Debian with systemd and Redis'
    rm -rf "$base"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,redis-server,procps bookworm "$base" \
        >"$base.log" 2>&1 ||
        skip "debootstrap failed, see $base.log"
    touch "$base/complete"
fi

work=$(mktemp -d)
nspawn=
leader=
own=
finish() {
    code=$?
    # By process id: the init of the container first, then systemd-nspawn.
    [ -z "$leader" ] || kill -KILL "$leader" 2>/dev/null || true
    [ -z "$nspawn" ] || wait "$nspawn" 2>/dev/null || true
    for group in $own; do
        find "${group%/cgroup.procs}" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
    rm -rf "$work"
    exit "$code"
}
trap finish EXIT
cp -a "$base" "$work/root"
tar -xzf "$archive" -C "$work"
DESTDIR=$work/root PREFIX=/usr sh "$work"/oncecast-*/install.sh install >/dev/null
cat >"$work/root/etc/oncecast/dispatcher.env" <<'END'
ONCECAST_CONSUMERS=127.0.0.1:6969,127.0.0.1:6970
END

# If the host has no systemd, nothing creates a control group for the container.
options=(--quiet --private-network --console=pipe --machine="oncecast-test-$$")
if ! [ -d /run/systemd/system ]; then
    options+=(--register=no --keep-unit)
    for hierarchy in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
        if [ -e "$hierarchy/cgroup.procs" ]; then
            mkdir -p "$hierarchy/oncecast-test"
            own="$own $hierarchy/oncecast-test/cgroup.procs"
        fi
    done
fi
(
    for group in $own; do echo "$BASHPID" >"$group"; done
    exec systemd-nspawn --boot --directory="$work/root" "${options[@]}" </dev/null
) >"$work/console" 2>&1 &
nspawn=$!

inside() {
    nsenter -t "$leader" -m -u -i -n -p -r -w env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C SYSTEMD_PAGER= "$@"
}

# systemctl waits until the unit has started, which takes less than this here.
systemctl_soon() {
    timeout 30 nsenter -t "$leader" -m -u -i -n -p -r -w systemctl "$@"
}

# Repeats a command until it succeeds. Arguments: seconds, what is awaited, the command.
until_true() {
    local limit=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$limit" ] || fail "waited too long for $what"
        sleep 0.2
    done
}

booted() {
    kill -0 "$nspawn" || skip "no container can be started here: $(tail -n 1 "$work/console")"
    leader=$(pgrep -P "$nspawn" | head -n 1)
    [ -n "$leader" ] && inside systemctl is-system-running | grep -q -E '^(running|degraded)$'
}
until_true 60 'the container to boot' booted

property() {
    inside systemctl show -p "$2" --value "$1"
}
restarts_are() {
    [ "$(property "$1" NRestarts)" = "$2" ] && [ "$(property "$1" ActiveState)" = active ]
}
is_well() {
    inside oncecast status | grep -q 'standby, in sync' && inside oncecast status
}
leads() {
    inside redis-cli get messages:leader | grep -q -- "-$1-"
}

echo 'a missing setting is named, and the unit is not restarted'
mv "$work/root/etc/oncecast/dispatcher.env" "$work/root/etc/oncecast/kept"
inside systemctl start oncecast-dispatcher 2>/dev/null && fail 'it started without consumers'
[ "$(property oncecast-dispatcher NRestarts) $(property oncecast-dispatcher ExecMainStatus)" = '0 2' ] ||
    fail 'it was restarted with invalid settings'
mv "$work/root/etc/oncecast/kept" "$work/root/etc/oncecast/dispatcher.env"

echo 'two dispatchers and two consumers start, without privileges'
dispatchers='oncecast-dispatcher@a oncecast-dispatcher@b'
consumers='oncecast-consumer@6969 oncecast-consumer@6970'
inside systemctl start redis-server
# Several words.
# shellcheck disable=SC2086
systemctl_soon start $consumers $dispatchers || fail 'they did not start'
until_true 10 'the group to be well' is_well
property oncecast-dispatcher@a StatusText | grep -q -E 'leads|standby' ||
    fail 'its status does not say leads or standby'
main=$(property oncecast-dispatcher@a MainPID)
inside grep -q '^CapEff:.0*$' "/proc/$main/status" || fail 'it has capabilities'
[ "$(inside ps -o uid= -p "$main")" -gt 60000 ] || fail 'it does not run as a dynamic user'

echo 'they are killed, hang, and are restarted one by one under load'
inside sh -c 'oncecast-publisher --rate 2000 --duration 40s --ids-file /root/ids >/root/published 2>&1' &
publisher=$!
recorded_more_than() {
    [ "$(inside redis-cli xlen messages:processed)" -gt "$1" ]
}
pending_are() {
    [ "$(inside redis-cli zcard messages:pending)" -eq "$1" ]
}
until_true 10 'results' recorded_more_than 2000
inside systemctl kill --signal KILL oncecast-dispatcher@a
until_true 10 'the killed dispatcher to come back' restarts_are oncecast-dispatcher@a 1
inside systemctl kill --signal KILL oncecast-consumer@6969
until_true 10 'the killed consumer to come back' restarts_are oncecast-consumer@6969 1
until_true 10 'the group to be well' is_well
hung=a
leads a || hung=b
before=$(property "oncecast-dispatcher@$hung" NRestarts)
inside systemctl kill --signal STOP "oncecast-dispatcher@$hung"
until_true 40 'the watchdog to end the one that hangs' restarts_are "oncecast-dispatcher@$hung" $((before + 1))
for unit in $consumers $dispatchers; do
    until_true 10 'the group to be well' is_well
    # Until then Redis could lose what only the others have seen (docs/OPERATIONS.md).
    sleep 3
    systemctl_soon restart "$unit" || fail "$unit did not start again"
done
wait "$publisher" || fail "the publisher failed: $(tail -n 1 "$work/root/root/published")"
tail -n 1 "$work/root/root/published"
until_true 20 'all to be done' pending_are 0
inside oncecast audit --ids /root/ids || fail 'something was lost or recorded twice'

echo 'the journal has the right priorities'
inside journalctl -q --no-pager -o cat -p warning -u 'oncecast-*' >"$work/warnings"
grep -q '^level=warn ' "$work/warnings" || fail 'there is no warning about the killed consumer'
! grep -q 'level=info' "$work/warnings" || fail 'a line of level info has priority warning'

echo 'a password in a credential file, of a Redis user'
inside redis-cli acl setuser oncecast on '>secret' '~*' '&*' +@all >/dev/null
for name in dispatcher consumer; do
    (umask 077 && echo 'redis://oncecast:secret@127.0.0.1:6379' >"$work/root/etc/oncecast/$name-redis-url")
done
for unit in $consumers $dispatchers; do
    systemctl_soon restart "$unit" || fail "$unit did not start with a credential file"
done
main=$(property oncecast-dispatcher@a MainPID)
[ "$(inside redis-cli client list | grep -c user=oncecast)" -gt 8 ] ||
    fail 'they do not use the user in the file'
inside sh -c "! grep -q secret@ /proc/$main/environ /proc/$main/cmdline" || fail 'the password is visible in /proc'

echo 'all secrets as credentials, from files that only root can read'
etc=$work/root/etc/oncecast
secrets=$work/secrets
scripts/trial-secrets.sh "$secrets" >/dev/null
install -d -m 755 "$work/root/etc/redis/tls"
install -m 644 "$secrets"/{ca.pem,redis.pem,redis.key,redis-users.acl} "$work/root/etc/redis/tls/"
cat >>"$work/root/etc/redis/redis.conf" <<'END'
port 0
tls-port 6380
tls-auth-clients no
tls-cert-file /etc/redis/tls/redis.pem
tls-key-file /etc/redis/tls/redis.key
tls-ca-cert-file /etc/redis/tls/ca.pem
aclfile /etc/redis/tls/redis-users.acl
END
install -m 644 "$secrets"/{ca.pem,dispatchers-ca.pem} "$etc/"
install -m 600 "$secrets"/{dispatcher.pem,dispatcher.key,consumer.pem,consumer.key,link-secret,metrics-token} "$etc/"
for name in dispatcher consumer publisher operator; do
    (umask 077 && sed 's/@redis:6379/@localhost:6380/' "$secrets/$name-redis-url" >"$etc/$name-redis-url")
done
cat >"$etc/dispatcher.env" <<'END'
ONCECAST_CONSUMERS=wss://localhost:6969,wss://localhost:6970
ONCECAST_REDIS_CA=/etc/oncecast/ca.pem
ONCECAST_TLS_CA=/etc/oncecast/ca.pem
END
echo 'ONCECAST_METRICS_ADDR=127.0.0.1:9464' >"$etc/dispatcher-a.env"
cat >"$etc/consumer.env" <<'END'
ONCECAST_REDIS_CA=/etc/oncecast/ca.pem
ONCECAST_TLS_CLIENT_CA=/etc/oncecast/dispatchers-ca.pem
END
# debootstrap leaves this file out.
echo "127.0.0.1 localhost" >>"$work/root/etc/hosts"
# The drop-ins of the documentation; here the dispatchers are instances.
for unit in oncecast-dispatcher oncecast-consumer@; do
    dropin=$work/root/etc/systemd/system/${unit%@}@.service.d
    mkdir -p "$dropin"
    sed -n "/^# .*\/$unit.service.d\/secrets.conf/,/^\`\`\`/ { /^\`\`\`/d; p }" docs/OPERATIONS.md \
        >"$dropin/secrets.conf"
    grep -q LoadCredential "$dropin/secrets.conf" || fail "docs/OPERATIONS.md has no drop-in for $unit.service"
done
# shellcheck disable=SC2086
systemctl_soon stop $dispatchers $consumers
# The audit below is about new messages only.
inside redis-cli flushall >/dev/null
inside systemctl daemon-reload
systemctl_soon restart redis-server || fail 'Redis did not start with TLS'
# shellcheck disable=SC2086
systemctl_soon start $consumers $dispatchers || fail 'they did not start with secrets'

# A program with a user's URL.
run_as() {
    local user=$1
    shift
    inside env ONCECAST_REDIS_URL_FILE="/etc/oncecast/$user-redis-url" ONCECAST_REDIS_CA=/etc/oncecast/ca.pem "$@"
}
is_well_with_secrets() {
    run_as operator oncecast status >"$work/status" 2>&1 && grep -q 'standby, in sync' "$work/status"
}
# The status of a request for the metrics with this token.
metrics_status() {
    # Expanded inside.
    # shellcheck disable=SC2016
    inside bash -c 'exec 9<>/dev/tcp/127.0.0.1/9464
        printf "GET /metrics HTTP/1.0\r\nAuthorization: Bearer %s\r\n\r\n" "$0" >&9
        read -r version status text <&9
        echo "$status"' "$1"
}
all_are_recorded() {
    run_as operator oncecast audit --ids /root/ids-of-secrets >"$work/audit" 2>&1
}

until_true 20 'the group with secrets to be well' is_well_with_secrets
inside redis-cli ping 2>&1 | grep -q PONG && fail 'Redis still answers without TLS'
[ "$(metrics_status "$(cat "$secrets/metrics-token")") $(metrics_status wrong)" = '200 401' ] ||
    fail 'the metrics do not require the token'
for unit in $dispatchers $consumers; do
    main=$(property "$unit" MainPID)
    for name in link-secret metrics-token dispatcher-redis-url consumer-redis-url; do
        secret=$(sed 's#.*:\(.*\)@.*#\1#' "$secrets/$name")
        inside grep -qaF "$secret" "/proc/$main/environ" "/proc/$main/cmdline" && fail "$name is visible in /proc"
    done
    user=$(inside ps -o uid= -p "$main" | tr -d ' ')
    inside setpriv --reuid="$user" --clear-groups cat /etc/oncecast/link-secret 2>/dev/null &&
        fail "the user of $unit can read /etc/oncecast/link-secret"
done
run_as publisher oncecast-publisher --rate 1000 --duration 5s --ids-file /root/ids-of-secrets >"$work/published" 2>&1 ||
    fail "the publisher failed: $(tail -n 1 "$work/published")"
until_true 20 'all to be recorded' all_are_recorded
cat "$work/audit"

echo 'a secret is replaced by restarts, since a credential is a copy'
old=$(cat "$secrets/link-secret")
new=$(openssl rand -hex 24)
for lines in "$new\n$old" "$new"; do
    # shellcheck disable=SC2059
    printf "$lines\n" >"$etc/link-secret"
    for unit in $consumers $dispatchers; do
        systemctl_soon restart "$unit" || fail "$unit did not start with another link secret"
        until_true 20 'the group to be well with another link secret' is_well_with_secrets
    done
done

echo 'they stop cleanly'
# shellcheck disable=SC2086
systemctl_soon stop $dispatchers $consumers
for unit in $dispatchers $consumers; do
    [ "$(property "$unit" Result)" = success ] || fail "$unit ended with $(property "$unit" Result)"
done
