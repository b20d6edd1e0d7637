#!/bin/sh
# Installs redis-server or valkey-server with the platform's package manager if neither is on PATH. Uses sudo where root
# is needed. Stops the service if the package starts one.
set -eu

have() {
    command -v "$1" >/dev/null 2>&1
}

have_server() {
    have redis-server || have valkey-server
}

# Runs a command as root. Without a terminal sudo must not ask for a password.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif ! have sudo; then
        echo "ensure-redis: this needs root, and there is no sudo: $*" >&2
        return 1
    elif [ -t 0 ]; then
        sudo "$@"
    else
        sudo -n "$@"
    fi
}

# Installs the first of the packages, given after the command, that can be installed.
first_of() {
    install=$1
    shift
    for package in "$@"; do
        # The command is several words.
        # shellcheck disable=SC2086
        if as_root $install "$package" && have_server; then
            return 0
        fi
    done
    return 1
}

install_one() {
    if have apt-get; then
        # The source that can't be reached may not be the one that is needed.
        as_root apt-get update ||
            echo 'ensure-redis: apt-get update failed, continuing with the known package lists' >&2
        first_of 'env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends' \
            redis-server valkey-server
    elif have dnf; then
        first_of 'dnf install -y' redis valkey
    elif have apk; then
        first_of 'apk add --no-cache' redis valkey
    elif have pacman; then
        first_of 'pacman -Sy --noconfirm --needed' valkey redis
    elif have brew; then
        # Homebrew refuses to run as root and does not start services.
        brew install redis
    else
        echo 'ensure-redis: found none of apt-get, dnf, apk, pacman and brew' >&2
        return 1
    fi
}

# Clusters of this project run private servers: the package's service is not needed.
stop_service() {
    for service in redis-server redis valkey-server valkey; do
        if [ -d /run/systemd/system ] && have systemctl; then
            if systemctl is-active --quiet "$service" || systemctl is-enabled --quiet "$service" 2>/dev/null; then
                as_root systemctl disable --now "$service" || true
            fi
        elif [ -x "/etc/init.d/$service" ]; then
            as_root "/etc/init.d/$service" stop >/dev/null 2>&1 || true
        fi
    done
}

if have_server; then
    exit 0
fi

echo 'neither redis-server nor valkey-server is on PATH: installing one'
# From here on commands may print much, but do not ask questions.
if install_one && have_server; then
    stop_service
    exit 0
fi

cat >&2 <<'MESSAGE'

Redis could not be installed. Install redis-server (6.2 or newer) or valkey-server by hand and run this again:
    Debian, Ubuntu     apt-get install redis-server
    Fedora, RHEL       dnf install redis        (or valkey)
    Alpine             apk add redis
    Arch               pacman -S valkey
    macOS              brew install redis
MESSAGE
exit 1
