#!/bin/sh
# Installs or uninstalls the programs, units, manual pages, documents, settings, and the files for Prometheus and
# Grafana.
#
#     install.sh install|uninstall        PREFIX=/usr/local  DESTDIR=  BUILT=folder with the programs
#
# In the source tree the programs are in target/release, in a release archive in bin. Paths in the units are adapted to
# PREFIX. Settings in /etc/oncecast are never overwritten and never removed.
set -eu
umask 022
here=$(cd "$(dirname "$0")" && pwd)
# In the source tree this script is one folder down.
[ -d "$here/systemd" ] || here=$(dirname "$here")

prefix=${PREFIX:-/usr/local}
root=${DESTDIR:-}
programs='oncecast oncecast-dispatcher oncecast-consumer oncecast-publisher'
bin=$root$prefix/bin
man=$root$prefix/share/man/man1
documents=$root$prefix/share/doc/oncecast
shared=$root$prefix/share/oncecast
units=$root$prefix/lib/systemd/system
settings=$root/etc/oncecast

case $prefix in
/*) ;;
*)
    echo "install: PREFIX must be an absolute path, not $prefix" >&2
    exit 2
    ;;
esac

put() {
    mode=$1
    folder=$2
    shift 2
    mkdir -p "$folder"
    for file in "$@"; do
        install -m "$mode" "$file" "$folder/"
    done
}

install_all() {
    built=${BUILT:-}
    if [ -z "$built" ]; then
        if [ -d "$here/bin" ]; then built=$here/bin; else built=${CARGO_TARGET_DIR:-$here/target}/release; fi
    fi
    for program in $programs; do
        [ -x "$built/$program" ] || {
            echo "install: $built/$program is missing: run make build first" >&2
            exit 1
        }
    done
    for program in $programs; do put 755 "$bin" "$built/$program"; done
    put 644 "$man" "$here"/man/*.1
    put 644 "$documents" "$here/README.md" "$here/CHANGELOG.md" "$here"/LICENSE-* "$here"/systemd/*.env.example
    # In a folder of their own, so that the links between them work.
    find "$here/docs" -maxdepth 1 -type f | while read -r file; do put 644 "$documents/docs" "$file"; done
    # In the source tree they are where compose.yml uses them.
    if [ -d "$here/monitoring" ]; then
        put 644 "$shared/monitoring" "$here"/monitoring/*
    else
        put 644 "$shared/monitoring" "$here"/docker/prometheus/alerts*.yml \
            "$here"/docker/grafana/dashboards/oncecast.json
    fi
    for unit in "$here"/systemd/*.service; do
        mkdir -p "$units"
        sed "s#=/usr/bin/oncecast#=$prefix/bin/oncecast#" "$unit" >"$units/${unit##*/}"
        chmod 644 "$units/${unit##*/}"
    done
    # Settings may contain a password.
    mkdir -p "$settings"
    for example in "$here"/systemd/*.env.example; do
        name=${example##*/}
        name=${name%.example}
        [ -e "$settings/$name" ] || install -m 640 "$example" "$settings/$name"
    done
    reload
    echo "installed below $root$prefix; the settings are in $settings; next read $documents/docs/OPERATIONS.md"
}

uninstall_all() {
    for program in $programs; do rm -f "$bin/$program"; done
    for page in "$here"/man/*.1; do rm -f "$man/${page##*/}"; done
    for unit in "$here"/systemd/*.service; do rm -f "$units/${unit##*/}"; done
    rm -rf "$documents" "$shared/monitoring"
    # Other files in these folders are not ours.
    rmdir "$shared" 2>/dev/null || true
    reload
    echo "removed from $root$prefix; the settings are still in $settings"
}

# Only for the running machine, not with a DESTDIR.
reload() {
    if [ -z "$root" ] && [ -d /run/systemd/system ]; then
        systemctl daemon-reload
    fi
}

case ${1:-} in
install) install_all ;;
uninstall) uninstall_all ;;
*)
    echo 'install: usage: install.sh install|uninstall' >&2
    exit 2
    ;;
esac
