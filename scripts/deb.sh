#!/bin/sh
# Builds dist/oncecast_<version>_<arch>.deb from the programs that scripts/dist.sh has built.
set -eu
cd "$(dirname "$0")/.."

cargo deb --version >/dev/null 2>&1 || {
    echo 'deb: cargo-deb is missing: cargo install cargo-deb' >&2
    exit 1
}
target=$(rustc -vV | sed -n 's/^host: //p')
rm -f dist/oncecast_*.deb
# The programs are built and stripped already.
cargo deb --quiet --no-build --no-strip --target "$target" --output dist/
(cd dist && sha256sum oncecast-*.tar.gz oncecast_*.deb >SHA256SUMS)
ls dist/oncecast_*.deb
