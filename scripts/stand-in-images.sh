#!/usr/bin/env bash
# Builds an image that replaces an official one if no registry can be reached, so that the test of compose.yml can run:
# `stand-in-images.sh rust` or `stand-in-images.sh redis`. The last line of the output is its name.
#
# rust   Debian by debootstrap, with this machine's Rust and the crates of Cargo.lock, so that cargo needs no network.
#        Needs root.
# redis  this machine's redis-server or valkey-server and the libraries it loads.
#
# Their names differ from the official ones, so that they are not mistaken for those later.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(mktemp -d)
trap 'rm -rf --one-file-system "$folder"' EXIT

exists() {
    docker image inspect "$1" >/dev/null 2>&1
}

say() {
    echo "stand-in-images: $*" >&2
}

# Removes former stand-ins.
only() {
    docker image ls --format '{{.Repository}}:{{.Tag}}' "${1%:*}" | { grep -vxF "$1" || true; } |
        xargs -r docker rmi >/dev/null 2>&1 || true
}

# Debian with a C linker for Rust.
debian() {
    local image=oncecast-stand-in/debian:bookworm
    exists "$image" && return
    if ! command -v debootstrap >/dev/null; then
        apt-get update >&2 || say 'apt-get update failed, continuing with the known package lists'
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends debootstrap >&2
    fi
    say "building $image, which takes some minutes"
    debootstrap --variant=minbase --include=gcc,libc6-dev,ca-certificates bookworm "$folder/root" >&2
    tar -C "$folder/root" --exclude=./var/cache/apt --exclude=./var/lib/apt/lists -c . | docker import - "$image" >&2
    rm -rf --one-file-system "$folder/root"
}

rust() {
    local image sysroot
    command -v rustc >/dev/null || { say 'rustc is missing: install Rust from https://rustup.rs'; return 1; }
    image=oncecast-stand-in/rust:$(cat Cargo.lock scripts/stand-in-images.sh <(rustc -vV) | sha256sum | cut -c1-16)
    if ! exists "$image"; then
        debian
        say "building $image"
        sysroot=$(rustc --print sysroot)
        mkdir -p "$folder/rust/toolchain/bin" "$folder/rust/cargo"
        cp -a "$sysroot/bin/cargo" "$sysroot/bin/rustc" "$folder/rust/toolchain/bin/"
        cp -a "$sysroot/lib" "$folder/rust/toolchain/"
        cargo vendor --locked --versioned-dirs "$folder/rust/vendor" >/dev/null 2>"$folder/vendor.log" || {
            cat "$folder/vendor.log" >&2
            return 1
        }
        cat >"$folder/rust/cargo/config.toml" <<'CONFIG'
[source.crates-io]
replace-with = "vendored"
[source.vendored]
directory = "/usr/local/rust/vendor"
CONFIG
        cat >"$folder/Dockerfile" <<'DOCKERFILE'
FROM oncecast-stand-in/debian:bookworm
COPY rust /usr/local/rust
ENV CARGO_HOME=/usr/local/rust/cargo
ENV PATH=/usr/local/rust/toolchain/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
DOCKERFILE
        docker build --quiet -t "$image" "$folder" >&2
        only "$image"
    fi
    echo "$image"
}

redis() {
    local image server root=$folder/root path
    sh scripts/ensure-redis.sh >&2
    server=$(command -v redis-server || command -v valkey-server)
    image=oncecast-stand-in/redis:$(cat "$server" scripts/stand-in-images.sh | sha256sum | cut -c1-16)
    if ! exists "$image"; then
        say "building $image"
        mkdir -p "$root/usr/local/bin" "$root/etc" "$root/data" "$root/tmp"
        cp -L "$server" "$root/usr/local/bin/redis-server"
        cp -L "$(command -v redis-cli || command -v valkey-cli)" "$root/usr/local/bin/redis-cli"
        # Each line names a file that is loaded: "libm.so.6 => /lib/… (0x…)" or "/lib64/ld-linux… (0x…)".
        for path in $(ldd "$root/usr/local/bin/redis-server" "$root/usr/local/bin/redis-cli" |
            grep -o '/[^ ]*\.so[^ ]*' | sort -u); do
            mkdir -p "$root$(dirname "$path")"
            cp -L "$path" "$root$path"
        done
        # The user id of the official image.
        echo 'root:x:0:0::/:/sbin/nologin' >"$root/etc/passwd"
        echo 'redis:x:999:1000::/data:/sbin/nologin' >>"$root/etc/passwd"
        printf 'root:x:0:\nredis:x:1000:\n' >"$root/etc/group"
        chown 999:1000 "$root/data"
        chmod 1777 "$root/tmp"
        tar -C "$root" -c . | docker import --change 'WORKDIR /data' --change 'CMD ["redis-server"]' - "$image" >&2
        only "$image"
    fi
    echo "$image"
}

case "${1-}" in
rust | redis) "$1" ;;
*)
    echo 'usage: stand-in-images.sh rust|redis' >&2
    exit 2
    ;;
esac
