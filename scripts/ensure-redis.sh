#!/bin/sh
# Makes sure that redis-server or valkey-server is on PATH: installs one with the platform's package manager if not.
# What needs root runs through sudo. A service that the package starts by itself is stopped again.
set -eu

have() {
    command -v "$1" >/dev/null 2>&1
}

have_server() {
    have redis-server || have valkey-server
}

# Runs a command as root. Without a terminal nobody could type a password: sudo must not ask for one then.
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
        # One source that cannot be reached need not be the one that matters.
        as_root apt-get update || echo 'ensure-redis: apt-get update failed, going on with what is known' >&2
        first_of 'env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends' redis-server valkey-server
    elif have dnf; then
        first_of 'dnf install -y' redis valkey
    elif have apk; then
        first_of 'apk add --no-cache' redis valkey
    elif have pacman; then
        first_of 'pacman -Sy --noconfirm --needed' valkey redis
    elif have brew; then
        # Homebrew refuses to run as root, and starts no service by itself.
        brew install redis
    else
        echo 'ensure-redis: none of apt-get, dnf, apk, pacman and brew is here' >&2
        return 1
    fi
}

# Each cluster here runs a Redis of its own: one that nobody asked for shall not run beside it.
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
# Everything from here on may write much, but asks nothing.
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
