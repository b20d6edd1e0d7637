#!/usr/bin/env bash
# Checks the package for Node (sdk/node): types, tests, what `npm pack` puts into the package, and that the README's
# consumer runs from that package in an empty folder and keeps the protocol (`oncecast conform`). Needs node and npm,
# redis-server, openssl, and the programs: ONCECAST_BIN names their folder, or else they are in target/release or
# target/debug.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

PACKED='README.md
index.d.ts
package.json
src/consumer.js
src/decode.js
src/delivery.js
src/encode.js
src/frames.js
src/index.js
src/jobs.js
src/limiter.js
src/link/connection.js
src/link/desk.js
src/link/files.js
src/link/http.js
src/link/lanes.js
src/link/results.js
src/link/secret.js
src/link/server.js
src/link/tls.js
src/link/worker.js
src/logger.js
src/outcome.js
src/pool.js
src/retry.js
src/settings.js
src/turns.js'

fail() {
    echo "check-sdk-node: $*" >&2
    exit 1
}

for tool in node npm redis-server redis-cli openssl; do
    command -v "$tool" >/dev/null || fail "$tool is missing: install it and run this again"
done
node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 18 ? 0 : 1)' || fail 'node is older than 18'

has_programs() {
    [[ -x $1/oncecast && -x $1/oncecast-dispatcher && -x $1/oncecast-publisher ]]
}
bin=${ONCECAST_BIN:-target/release}
[[ -n ${ONCECAST_BIN:-} ]] || has_programs "$bin" || bin=target/debug
has_programs "$bin" || fail "no programs in $bin: run cargo build, or set ONCECAST_BIN"
ONCECAST_BIN=$(cd "$bin" && pwd)

work=$(mktemp -d)
children=()
clean_up() {
    for child in "${children[@]}"; do
        kill -KILL "$child" 2>/dev/null || true
        wait "$child" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap clean_up EXIT

# wait_for WHAT COMMAND…: until the command succeeds, at most 20 s.
wait_for() {
    local what=$1
    shift
    for _ in {1..200}; do
        if "$@" >/dev/null 2>&1; then
            return
        fi
        sleep 0.1
    done
    fail "not within 20 s: $what
$(tail -n 20 "$work"/*.log)"
}

# Below the ports of outgoing connections, one of which might take it before its program.
free_port() {
    node -e 'const listen = () => {
        const port = 15000 + Math.floor(Math.random() * 17000);
        const server = require("net").createServer().on("error", listen);
        server.listen(port, "127.0.0.1", () => { console.log(port); server.close(); });
    };
    listen();'
}

version=$(node -p 'require("./sdk/node/package.json").version')
grep -qx "version = \"$version\"" Cargo.toml || fail "sdk/node has version $version, Cargo.toml another one"

pushd sdk/node >/dev/null
if grep -nE 'https?://' package-lock.json; then
    fail 'package-lock.json names a host'
fi
npm ci --silent --no-audit --no-fund
npm run --silent check
ONCECAST_BIN=$ONCECAST_BIN npm test --silent
npm pack --silent --pack-destination "$work" >/dev/null
popd >/dev/null

package=("$work"/oncecast-*.tgz)
packed=$(tar -tzf "${package[0]}" | sed 's|^package/||' | LC_ALL=C sort)
[[ $packed == "$PACKED" ]] || fail "the package does not contain exactly what it should:
$(diff <(echo "$PACKED") <(echo "$packed"))"

mkdir "$work/app"
cd "$work/app"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund "${package[0]}"

# The consumers in the package's README and in the project's, with a port that is free here.
redis=$(free_port)
redis-server --port "$redis" --bind 127.0.0.1 --dir "$work" --save '' >"$work/redis.log" &
children+=($!)
wait_for 'Redis answers' redis-cli -p "$redis" PING

# Runs the consumer that a file shows, and compares the result of one message.
try_the_consumer_of() {
    local readme=$1 expected=$2 name=$3 listen dispatcher worker
    listen=127.0.0.1:$(free_port)
    # The backquotes are those of Markdown.
    # shellcheck disable=SC2016
    sed -n '/^```js$/,/^```$/p' "$readme" | sed '/^```/d' >"$name.mjs"
    (($(wc -l <"$name.mjs") < 10)) || fail "the consumer in $readme has ten lines or more"
    sed -i.bak "s|'127.0.0.1:6969'|'$listen'|" "$name.mjs"
    grep -q "$listen" "$name.mjs" || fail "the consumer in $readme does not listen on 127.0.0.1:6969"
    redis-cli -p "$redis" FLUSHALL >/dev/null
    env -u ONCECAST_BIN "$ONCECAST_BIN/oncecast-dispatcher" --redis-url "redis://127.0.0.1:$redis" \
        --consumers "$listen" 2>"$work/$name-dispatcher.log" &
    dispatcher=$!
    children+=("$dispatcher")
    node "$name.mjs" >"$work/$name.log" 2>&1 &
    worker=$!
    children+=("$worker")
    wait_for 'the consumer is linked' grep -q 'event=consumer-linked' "$work/$name-dispatcher.log"
    redis-cli -p "$redis" PUBLISH messages:published '{"id":"o-1","price":21,"count":2}' >/dev/null
    has_result() {
        [[ $(redis-cli -p "$redis" XRANGE messages:processed - + | tail -n +2 | paste -sd ' ') == "$expected" ]]
    }
    wait_for "the result '$expected'" has_result
    kill -TERM "$worker"
    wait "$worker" || fail "the consumer did not stop cleanly: $(cat "$work/$name.log")"
    [[ ! -s $work/$name.log ]] || fail "the consumer printed something: $(cat "$work/$name.log")"
    kill -TERM "$dispatcher"
    wait "$dispatcher" || fail "the dispatcher did not stop cleanly: $(cat "$work/$name-dispatcher.log")"
}
try_the_consumer_of node_modules/oncecast/README.md 'order o-1 total 42' packaged
try_the_consumer_of "$root/README.md" 'shouted {"ID":"O-1","PRICE":21,"COUNT":2}' shown

# The rules that can be seen from outside: without and with TLS, and with a link secret if the programs know it.
cp "$root/sdk/node/examples/conform_worker.mjs" .
listens() {
    (exec 3<>"/dev/tcp/${1/:/\/}")
}
conform() {
    env -u ONCECAST_BIN "$ONCECAST_BIN/oncecast" conform "$@"
}
# check_conformance NAME SCHEME SETTINGS OPTION…: the consumer has these settings (JSON), and conform these options.
check_conformance() {
    local name=$1 scheme=$2 settings=$3 listen worker
    shift 3
    listen=127.0.0.1:$(free_port)
    node conform_worker.mjs "$listen" conform "$settings" 2>"$work/$name.log" &
    worker=$!
    children+=("$worker")
    wait_for 'the consumer for conform listens' listens "$listen"
    conform "$scheme://$listen" --group conform --conformance-handler --pid "$worker" "$@" >"$work/$name-conform.log" \
        || fail "$name: the consumer violates the protocol: $(grep -v '^ok' "$work/$name-conform.log")"
    echo "$name: $(tail -n 1 "$work/$name-conform.log")"
    wait "$worker" || fail "the consumer for conform did not stop cleanly: $(cat "$work/$name.log")"
}

# issue NAME: a key and a certificate of the authority, for 127.0.0.1.
issue() {
    printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' >"$work/extensions"
    openssl req "${ec[@]}" -subj "/CN=$1" -keyout "$work/$1.key" -out "$work/$1.csr" 2>/dev/null
    openssl x509 -req -in "$work/$1.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 2 \
        -extfile "$work/extensions" -out "$work/$1.pem" 2>/dev/null
}
ec=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)

if conform --help >/dev/null 2>&1; then
    check_conformance plain ws '{}'
    openssl req -x509 "${ec[@]}" -days 2 -subj /CN=ca -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
    issue consumer
    issue dispatcher
    tls="\"tlsCert\":\"$work/consumer.pem\",\"tlsKey\":\"$work/consumer.key\",\"tlsClientCa\":\"$work/ca.pem\""
    ours=(--tls-ca "$work/ca.pem" --tls-cert "$work/dispatcher.pem" --tls-key "$work/dispatcher.key")
    check_conformance tls wss "{$tls}" "${ours[@]}"
    if conform --help | grep -q -e --link-secret-file; then
        (umask 077 && printf '%s\n' 'a new secret of this group' 'the secret of this group so far' >"$work/secret")
        secret="\"linkSecretFile\":\"$work/secret\""
        check_conformance secret ws "{$secret}" --link-secret-file "$work/secret"
        check_conformance tls-and-secret wss "{$tls,$secret}" "${ours[@]}" --link-secret-file "$work/secret"
    else
        echo 'skipped: this oncecast has no --link-secret-file'
    fi
else
    echo 'skipped: this oncecast has no conform'
fi

if node -p 'process.features.require_module' | grep -qx true; then
    node --no-warnings -e 'new (require("oncecast").Consumer)(() => {})' || fail 'require does not work'
fi
echo 'the package for Node: types, tests, contents, and a consumer from it'
