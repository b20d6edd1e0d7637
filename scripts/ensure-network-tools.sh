#!/bin/sh
# Makes sure that `ip`, `tc` and `iptables` are there, for the tests that break networks, if this is root. Those tests are
# skipped without them, so a failure here is told and is not an error.
set -u

have() {
    command -v "$1" >/dev/null 2>&1
}

have_all() {
    have ip && have tc && have iptables
}

if have_all || [ "$(id -u)" -ne 0 ] || [ "$(uname)" != Linux ]; then
    exit 0
fi

echo 'ip, tc or iptables is missing: installing them'
if have apt-get; then
    # One source that cannot be reached need not be the one that matters.
    apt-get update || echo 'ensure-network-tools: apt-get update failed, going on with what is known' >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends iproute2 iptables
elif have dnf; then
    dnf install -y iproute iproute-tc iptables
elif have apk; then
    apk add --no-cache iproute2 iptables
elif have pacman; then
    pacman -Sy --noconfirm --needed iproute2 iptables
fi

have_all || echo 'ensure-network-tools: the tests of broken networks will be skipped' >&2
exit 0
