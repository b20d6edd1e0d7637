#!/bin/sh
# Makes sure that a Chromium is on PATH for the tests of the status page, if this is root. Without one these tests say so
# and are skipped, so a failure here is told and is no error.
set -u

have() {
    command -v "$1" >/dev/null 2>&1
}

# The names that the tests look for.
have_browser() {
    have chromium || have chromium-browser || have google-chrome || have chrome
}

if [ "$(id -u)" -ne 0 ] || [ "$(uname)" != Linux ] || have_browser; then
    exit 0
fi

echo 'installing a Chromium for the tests of the status page'
if have apt-get; then
    # One source that cannot be reached need not be the one that matters.
    apt-get update || echo 'ensure-chromium: apt-get update failed, going on with what is known' >&2
    # Ubuntu's package of this name wants snapd, which a container has not: the tests are skipped there.
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium
elif have dnf; then
    dnf install -y chromium
elif have apk; then
    apk add --no-cache chromium
elif have pacman; then
    pacman -Sy --noconfirm --needed chromium
fi

have_browser || echo 'ensure-chromium: it could not be installed, tests of the status page will be skipped' >&2
exit 0
