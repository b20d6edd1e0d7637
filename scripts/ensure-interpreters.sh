#!/bin/sh
# Installs Python and Node, which tests of workers in other languages need, if one is missing and this runs as root.
# Without them those tests fail, and say what to install.
set -u

have() {
    command -v "$1" >/dev/null 2>&1
}

have_all() {
    have python3 && python3 -c 'import ensurepip, venv' 2>/dev/null && have node && have npm
}

if [ "$(id -u)" -ne 0 ] || [ "$(uname)" != Linux ] || have_all; then
    exit 0
fi

echo 'installing Python and Node for the tests of workers in other languages'
if have apt-get; then
    # The source that can't be reached may not be the one that is needed.
    apt-get update || echo 'ensure-interpreters: apt-get update failed, continuing with the known package lists' >&2
    packages=
    have python3 && python3 -c 'import ensurepip, venv' 2>/dev/null || packages='python3 python3-venv'
    have node || packages="$packages nodejs"
    have npm || packages="$packages npm"
    # The packages are several words.
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages
elif have dnf; then
    dnf install -y python3 nodejs npm
elif have apk; then
    apk add --no-cache python3 nodejs npm
elif have pacman; then
    pacman -Sy --noconfirm --needed python nodejs npm
fi

have_all || echo 'ensure-interpreters: could not install Python and Node; tests that need them will fail' >&2
exit 0
