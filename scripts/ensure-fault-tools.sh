#!/bin/sh
# Installs the tools of the fault tests if they are missing and this runs as root: `ip`, `tc` and `iptables` for network
# faults, libfaketime for clocks. Tests that lack a tool are skipped, so a failure is reported but is not an error.
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

echo 'installing the tools of the fault tests: ip, tc, iptables, libfaketime'
if have apt-get; then
    # The source that can't be reached may not be the one that is needed.
    apt-get update || echo 'ensure-fault-tools: apt-get update failed, continuing with the known package lists' >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends iproute2 iptables libfaketime
elif have dnf; then
    dnf install -y iproute iproute-tc iptables libfaketime
elif have apk; then
    apk add --no-cache iproute2 iptables libfaketime
elif have pacman; then
    pacman -Sy --noconfirm --needed iproute2 iptables libfaketime
fi

have_all || echo 'ensure-fault-tools: could not install all tools; some tests will be skipped' >&2
exit 0
