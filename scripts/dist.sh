#!/bin/sh
# Builds the release archive: dist/oncecast-<version>-<arch>-linux.tar.gz and dist/SHA256SUMS. Its programs are static:
# they run on any Linux of this architecture whose kernel Rust supports.
set -eu
cd "$(dirname "$0")/.."

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
target=$(rustc -vV | sed -n 's/^host: //p')
arch=${target%%-*}
case $target in
*-linux-gnu*) ;;
*)
    echo "dist: the archive is made on Linux with the gnu target, this is $target" >&2
    exit 1
    ;;
esac
built=${CARGO_TARGET_DIR:-target}/$target/release

# glibc and not musl, whose allocator is slow when threads share it; a static glibc resolves names without its plug-ins.
# With --target the flag does not apply to build scripts. Names of functions are kept for backtraces.
RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" CARGO_PROFILE_RELEASE_STRIP=debuginfo \
    cargo build --release --locked --bins --target "$target"

# The time of the last commit, so that the same sources give the same archive.
when=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
name=oncecast-$version-$arch-linux
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/$name/bin" "$work/$name/docs" "$work/$name/monitoring" dist
for program in oncecast oncecast-dispatcher oncecast-consumer oncecast-publisher; do
    install -m 755 "$built/$program" "$work/$name/bin/"
done
cp -R systemd man README.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT "$work/$name/"
cp docker/prometheus/alerts.yml docker/prometheus/alerts_test.yml docker/grafana/dashboards/oncecast.json \
    "$work/$name/monitoring/"
find docs -maxdepth 1 -type f -exec cp {} "$work/$name/docs/" \;
install -m 755 scripts/install.sh "$work/$name/install.sh"
chmod -R u=rwX,go=rX "$work/$name"
tar --sort=name --format=ustar --owner=0 --group=0 --numeric-owner --mtime="@$when" -C "$work" -cf - "$name" |
    gzip -9n >"dist/$name.tar.gz"
(cd dist && sha256sum "$name.tar.gz" >SHA256SUMS)
echo "dist/$name.tar.gz  $(du -h "dist/$name.tar.gz" | cut -f1)"
