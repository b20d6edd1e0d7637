#!/bin/sh
# Checks the units, with the drop-ins of docs/OPERATIONS.md: systemd must accept every line, and the exposure of each
# may be at most 2.0 of 10. Works without a running systemd. If systemd-analyze is missing, root installs it with
# apt-get; otherwise the check is skipped.
set -eu
cd "$(dirname "$0")/.."

# In tenths, the unit of systemd-analyze.
most_exposure=20

if ! command -v systemd-analyze >/dev/null 2>&1 && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo 'installing systemd for systemd-analyze; nothing is started'
    apt-get update || echo 'check-systemd: apt-get update failed, continuing with the known package lists' >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends systemd || true
fi
if ! command -v systemd-analyze >/dev/null 2>&1; then
    echo 'SKIPPED: the units are not checked, systemd-analyze is missing (it comes with systemd)'
    exit 0
fi
version=$(systemd-analyze --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
if [ "${version:-0}" -lt 250 ]; then
    echo "SKIPPED: the units are not checked, they need systemd 250 and this is ${version:-unknown}"
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/usr/bin" "$work/etc/systemd/system" "$work/usr/lib/systemd"
# `verify` needs the units that ours refer to, and a file for each program.
cp -R "$(dirname "$(find /usr/lib/systemd/system /lib/systemd/system -name sysinit.target 2>/dev/null | head -n 1)")" \
    "$work/usr/lib/systemd/system"
for program in oncecast-dispatcher oncecast-consumer; do
    printf '#!/bin/sh\n' >"$work/usr/bin/$program"
    chmod 755 "$work/usr/bin/$program"
done
cp systemd/*.service "$work/etc/systemd/system/"
# A template is checked as one of its instances.
mv "$work/etc/systemd/system/oncecast-consumer@.service" "$work/etc/systemd/system/oncecast-consumer@6969.service"
mv "$work/etc/systemd/system/oncecast-dispatcher@.service" "$work/etc/systemd/system/oncecast-dispatcher@a.service"
# The drop-in that OPERATIONS.md shows for a unit.
drop_in() {
    mkdir "$work/etc/systemd/system/$2.d"
    sed -n "/^# .*\/$1.d\/secrets.conf/,/^\`\`\`/ { /^\`\`\`/d; p }" docs/OPERATIONS.md \
        >"$work/etc/systemd/system/$2.d/secrets.conf"
    grep -q LoadCredential "$work/etc/systemd/system/$2.d/secrets.conf" || {
        echo "check-systemd: docs/OPERATIONS.md shows no drop-in for $1" >&2
        exit 1
    }
}
drop_in oncecast-dispatcher.service oncecast-dispatcher.service
drop_in oncecast-consumer@.service oncecast-consumer@6969.service

failed=0
# The two units of the dispatcher may differ only in the instance name.
settings() {
    grep -v '^#' "systemd/$1"
}
settings oncecast-dispatcher@.service |
    sed -e '/dispatcher-%i\.env$/d' -e 's/^\(Description=.*\) %i$/\1/' -e 's/ID=%l-%i$/ID=%l/' >"$work/template"
settings oncecast-dispatcher.service >"$work/plain"
if ! diff "$work/plain" "$work/template"; then
    echo 'check-systemd: the two units of the dispatcher differ' >&2
    failed=1
fi
for unit in oncecast-dispatcher.service oncecast-dispatcher@a.service oncecast-consumer@6969.service; do
    # Ignore complaints about the system's own units.
    said=$(systemd-analyze verify --man=no --root="$work" "$unit" 2>&1) && code=0 || code=$?
    said=$(printf '%s\n' "$said" | grep -i oncecast || true)
    if [ "$code" -ne 0 ] || [ -n "$said" ]; then
        echo "systemd-analyze verify $unit (exit code $code): $said" >&2
        failed=1
    fi
    file=$work/etc/systemd/system/$unit
    if ! report=$(systemd-analyze security --offline=true --no-pager --threshold="$most_exposure" "$file" 2>&1); then
        printf '%s\n' "$report" >&2
        failed=1
    fi
    printf '%s\n' "$report" |
        sed -n "s/.*Overall exposure level for \(.*\): \([0-9.]*\) .*/\1: accepted, exposure \2 of 10/p"
done
exit "$failed"
