#!/usr/bin/env bash
# Runs the tests that depend most on the server with each server of scripts/servers.txt, one after the other, and writes
# the table in docs/COMPATIBILITY.md. SERVERS='redis-8.2.3 valkey-9.1.2' runs only some of them, and then nothing is
# written, as in CI. The logs are in target/servers.
set -euo pipefail
cd "$(dirname "$0")/.."

TARGET=$PWD/target/servers
DOCUMENT=docs/COMPATIBILITY.md
THREADS=${RUST_TEST_THREADS:-$((3 * $(nproc)))}
# The table's columns, and the tests of each: prefixes of their names. A test counts for the first that fits.
COLUMNS=(job takeover failover recall doctor rights steps)
declare -A TESTS=(
    [job]='leader::consumers::row_01 leader::stream::row_01 delivery::one_result'
    [takeover]='leader::consumers::row_02 restarts::consumers::row_12_redis_killed_and_restarted leadership::takeover'
    [failover]='sentinel::consumers::row_47_primary_killed sentinel::consumers::row_47_wait delivery::replicas'
    [recall]='delivery::recall'
    [doctor]='doctor:: programs::doctor documents::acl::doctor'
    [rights]='documents::acl ledger::tests::refusals'
    [steps]='ledger::'
)
# Not in the table: that the tests use this server.
GUARD=lab::server::the_server_is_the_expected_one

# How many tests that passed fit a column, without those that were left out: column, log. The latter say so in log.err.
passed() {
    awk -v wanted="$1" -v columns="${COLUMNS[*]}" "$(
        for column in "${COLUMNS[@]}"; do printf 'BEGIN { tests["%s"] = "%s" }\n' "$column" "${TESTS[$column]}"; done
    )"'
        /SKIPPED / { sub(/^.*SKIPPED /, ""); sub(/: .*/, ""); left_out[$0]; next }
        /^test .* \.\.\. ok$/ && !($2 in left_out) {
            for (c = 1; c <= split(columns, names, " "); c++)
                for (t = 1; t <= split(tests[names[c]], prefixes, " "); t++)
                    if (index($2, prefixes[t]) == 1) { count[names[c]]++; next }
        }
        END { print count[wanted] + 0 }' "$2.err" "$2"
}

# Runs all tests with one server; prints its row: kind, version, package, package's version, file.
check() {
    local kind=$1 version=$2 source="\`$3\` $4" log=$TARGET/$1-$2.log left_out column count row begin=$SECONDS
    [ "$3" != PATH ] || source="\`$5\` on \`PATH\`"
    # shellcheck disable=SC2086
    if ! PATH="$TARGET/$kind-$version:$PATH" ONCECAST_TEST_SERVER="$kind $version" RUST_TEST_THREADS=$THREADS \
        cargo test --locked --no-fail-fast --lib --test integration --test faults -- $GUARD ${TESTS[*]} \
        >"$log" 2>"$log.err" || ! grep -q "^test $GUARD \.\.\. ok" "$log"; then
        grep -hE '^test .* FAILED$|panicked at|^error' "$log" "$log.err" >&2 || true
        echo "check-servers: failed with $kind $version; the whole output is in $log and $log.err" >&2
        return 1
    fi
    left_out=$(sed -n 's/^.*SKIPPED //p' "$log.err" | sort -u)
    row="| ${kind^} $version | $source |"
    for column in "${COLUMNS[@]}"; do
        count=$(passed "$column" "$log")
        [ "$count" -gt 0 ] || { echo "check-servers: no test of '$column' ran with $kind $version" >&2; return 1; }
        row+=" $count |"
    done
    row+=" $(grep -c . <<<"$left_out" || true) |"
    echo "$kind $version passed in $((SECONDS - begin)) s" >&2
    [ -z "$left_out" ] || sed 's/^/    left out: /' <<<"$left_out" >&2
    echo "$row"
}

# Replaces the lines between the marks in the document by the table.
write() {
    awk -v table="$1" '
        /^<!-- servers: / { print; print ""; while ((getline line < table) > 0) print line; print ""; skip = 1 }
        /^<!-- end of servers -->/ { skip = 0 }
        !skip || /^<!-- end/ { if (!/^<!-- servers: /) print }' "$DOCUMENT" >"$TARGET/document.md"
    cp "$TARGET/document.md" "$DOCUMENT"
    echo "$DOCUMENT has the table of this run"
}

bash scripts/servers.sh
cargo test --locked --no-run --quiet --lib --bins --test integration --test faults
rows=$TARGET/table.md
{
    echo '| server | from | main job | take-over | failover | recall | doctor | rights and refusals |' \
        'steps in Redis | left out |'
    echo '|---|---|--:|--:|--:|--:|--:|--:|--:|--:|'
} >"$rows"
all=true
while read -r kind version package package_version _ file _; do
    if [ -n "${SERVERS:-}" ] && [[ " $SERVERS " != *" $kind-$version "* ]] || [ ! -e "$TARGET/$kind-$version" ]; then
        echo "$kind $version was not run"
        all=false
        continue
    fi
    check "$kind" "$version" "$package" "$package_version" "$file" >>"$rows" </dev/null
done < <(grep -E '^(redis|valkey) ' scripts/servers.txt)
cat "$rows"
if $all && [ -z "${CI:-}" ]; then
    write "$rows"
fi
