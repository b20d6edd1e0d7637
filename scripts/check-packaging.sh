#!/bin/sh
# Checks the output of `make dist`, `make install` and `make deb`: unpacks it, installs it into temporary folders
# without cargo, and checks names, modes and contents. Needs dist/ from scripts/dist.sh. Without cargo-deb the package
# is skipped.
set -eu
cd "$(dirname "$0")/.."
export LC_ALL=C

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

fail() {
    echo "check-packaging: $*" >&2
    exit 1
}

# Modes and names of all files below a folder.
tree() {
    (cd "$1" && find . -type f -printf '%m %P\n' | sort -k 2)
}

must_be() {
    if ! diff "$1" "$2"; then
        fail "$3: lines with < are expected, lines with > were found"
    fi
}

# The files of an installation with this prefix.
expected() {
    for program in oncecast oncecast-consumer oncecast-dispatcher oncecast-publisher; do
        echo "755 $1/bin/$program"
    done
    for unit in oncecast-dispatcher.service oncecast-dispatcher@.service oncecast-consumer@.service; do
        echo "644 $1/lib/systemd/system/$unit"
    done
    for page in man/*.1; do echo "644 $1/share/man/man1/${page##*/}"; done
    for file in README.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT dispatcher.env.example consumer.env.example; do
        echo "644 $1/share/doc/oncecast/$file"
    done
    find docs -maxdepth 1 -type f | while read -r file; do echo "644 $1/share/doc/oncecast/$file"; done
    for file in alerts.yml alerts_test.yml oncecast.json; do echo "644 $1/share/oncecast/monitoring/$file"; done
    echo '640 etc/oncecast/dispatcher.env'
    echo '640 etc/oncecast/consumer.env'
}

echo 'the archive'
(cd dist && sha256sum --check --quiet SHA256SUMS)
archive=$(ls dist/oncecast-"$version"-*-linux.tar.gz)
! tar -tvzf "$archive" | grep -qv ' 0/0 ' || fail 'files in the archive are not owned by root'
tar -xzf "$archive" -C "$work"
unpacked=$(echo "$work"/oncecast-*)
for program in "$unpacked"/bin/*; do
    said=$("$program" --version)
    [ "$said" = "${program##*/} $version" ] || fail "$program reports the version $said"
    # For a static program ldd fails or reports that it is not dynamic.
    if ldd "$program" 2>/dev/null | grep -q '=>'; then fail "$program is not static"; fi
done
# A static program must resolve names, too: the connection is refused, but the name is found.
said=$("$unpacked/bin/oncecast" status --redis-url redis://localhost:1 2>&1) && fail 'there is a Redis on port 1'
case $said in
*refused*) ;;
*) fail "a static program cannot look up localhost: $said" ;;
esac
# And it has TLS: it looks for the system's authorities, or for the server.
said=$("$unpacked/bin/oncecast" status --redis-url rediss://localhost:1 2>&1) && fail 'there is a Redis on port 1'
case $said in
*feature*) fail "a static program was built without TLS: $said" ;;
*refused* | *authorities*) ;;
*) fail "a static program says of TLS: $said" ;;
esac

echo 'installing from the archive'
# Without cargo, and with another umask.
install_it() {
    (umask 077 && env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DESTDIR="$1" PREFIX="$2" \
        sh "$unpacked/install.sh" "$3") >"$work/said"
}
install_it "$work/usr" /usr install
expected usr | sort -k 2 >"$work/expected"
tree "$work/usr" >"$work/found"
must_be "$work/expected" "$work/found" 'PREFIX=/usr'
cmp -s systemd/oncecast-dispatcher.service "$work/usr/usr/lib/systemd/system/oncecast-dispatcher.service" ||
    fail 'with PREFIX=/usr the units differ from those of the source tree'
install_it "$work/local" /usr/local install
expected usr/local | sort -k 2 >"$work/expected"
tree "$work/local" >"$work/found"
must_be "$work/expected" "$work/found" 'PREFIX=/usr/local'
grep -qx 'ExecStart=/usr/local/bin/oncecast-dispatcher' \
    "$work/local/usr/local/lib/systemd/system/oncecast-dispatcher.service" ||
    fail 'the unit does not start the installed program'
[ -z "$(find "$work/local" -type d ! -perm 755)" ] || fail 'a folder does not have mode 755'

echo 'settings are kept'
echo 'ONCECAST_CONSUMERS=mine:6969' >"$work/local/etc/oncecast/dispatcher.env"
install_it "$work/local" /usr/local install
grep -qx 'ONCECAST_CONSUMERS=mine:6969' "$work/local/etc/oncecast/dispatcher.env" || fail 'settings were overwritten'
install_it "$work/local" /usr/local uninstall
tree "$work/local" >"$work/found"
printf '640 etc/oncecast/consumer.env\n640 etc/oncecast/dispatcher.env\n' >"$work/expected"
must_be "$work/expected" "$work/found" 'after uninstall'

if ! cargo deb --version >/dev/null 2>&1; then
    echo 'SKIPPED: the Debian package is not checked, cargo-deb is missing (cargo install cargo-deb)'
    exit 0
fi
if ! command -v dpkg-deb >/dev/null; then
    echo 'SKIPPED: the Debian package is not checked, dpkg-deb is missing'
    exit 0
fi

echo 'the Debian package'
sh scripts/deb.sh >/dev/null
package=$(ls dist/oncecast_"$version"*.deb)
dpkg-deb -x "$package" "$work/package"
# Packages have compressed manual pages, one file for the licences, and the examples that postinst copies.
expected usr | sed -e 's/\.1$/.1.gz/' -e 's/LICENSE-APACHE/copyright/' -e 's#doc/oncecast/\(.*\.env\)#oncecast/\1#' \
    -e '/ etc\//d' | sort -k 2 >"$work/expected"
tree "$work/package" >"$work/found"
must_be "$work/expected" "$work/found" "$package"
dpkg-deb -e "$package" "$work/control"
for script in postinst prerm postrm; do
    [ -x "$work/control/$script" ] || fail "$script is missing"
    sh -n "$work/control/$script"
done
[ "$(dpkg-deb -f "$package" Package)" = oncecast ] || fail 'the package has the wrong name'
[ "$("$work/package/usr/bin/oncecast" --version)" = "oncecast $version" ] ||
    fail 'the program in the package does not run'
