#!/bin/sh
# Installs Chromium for the tests of the status page if there is none and this runs as root. Without it these tests are
# skipped, so a failure is reported but is not an error.
set -u

have() {
    command -v "$1" >/dev/null 2>&1
}

# The names that the tests try.
have_browser() {
    have chromium || have chromium-browser || have google-chrome || have chrome
}

if [ "$(id -u)" -ne 0 ] || [ "$(uname)" != Linux ] || have_browser; then
    exit 0
fi

echo 'installing Chromium for the tests of the status page'
if have apt-get; then
    # The source that can't be reached may not be the one that is needed.
    apt-get update || echo 'ensure-chromium: apt-get update failed, continuing with the known package lists' >&2
    # Ubuntu's package needs snapd, which containers lack: the tests are skipped there.
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium
elif have dnf; then
    dnf install -y chromium
elif have apk; then
    apk add --no-cache chromium
elif have pacman; then
    pacman -Sy --noconfirm --needed chromium
fi

have_browser || echo 'ensure-chromium: could not install Chromium; tests of the status page will be skipped' >&2
exit 0
