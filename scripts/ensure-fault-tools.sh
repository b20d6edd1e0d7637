#!/bin/sh
# Makes sure that what the tests of faults break things with is there, if this is root: `ip`, `tc` and `iptables` for
# networks, libfaketime for clocks. Tests that lack something say so and are skipped, so a failure here is told and is no
# error.
set -u

have() {
    command -v "$1" >/dev/null 2>&1
}

have_all() {
    have ip && have tc && have iptables && ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1
}

if [ "$(id -u)" -ne 0 ] || [ "$(uname)" != Linux ] || have_all; then
    exit 0
fi

echo 'installing what tests of faults need: ip, tc, iptables, libfaketime'
if have apt-get; then
    # One source that cannot be reached need not be the one that matters.
    apt-get update || echo 'ensure-fault-tools: apt-get update failed, going on with what is known' >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends iproute2 iptables libfaketime
elif have dnf; then
    dnf install -y iproute iproute-tc iptables libfaketime
elif have apk; then
    apk add --no-cache iproute2 iptables libfaketime
elif have pacman; then
    pacman -Sy --noconfirm --needed iproute2 iptables libfaketime
fi

have_all || echo 'ensure-fault-tools: not all of it could be installed, some tests will be skipped' >&2
exit 0
