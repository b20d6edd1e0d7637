#!/bin/sh
# Installs what our packages for Python and Node need, for the rows of the fault matrix with consumers in several
# languages: websockets into target/workers, and ws into sdk/node/node_modules. Without them these rows are skipped, so
# a failure is reported but is not an error, except in CI.
set -u
cd "$(dirname "$0")/.." || exit 1

have_websockets() {
    target/workers/bin/python -c 'import websockets' 2>/dev/null
}

have_ws() {
    [ -d sdk/node/node_modules/ws ]
}

if ! have_websockets; then
    echo 'installing websockets for tests of the package for Python'
    rm -rf target/workers
    python3 -m venv target/workers &&
        target/workers/bin/python -m pip install --quiet --disable-pip-version-check 'websockets>=13'
fi
if ! have_ws; then
    echo 'installing ws for tests of the package for Node'
    (cd sdk/node && npm ci --silent --omit=dev --no-audit --no-fund)
fi

if ! have_websockets || ! have_ws; then
    echo 'ensure-workers: could not install websockets and ws; rows with consumers in several languages need them' >&2
    [ -z "${CI:-}" ] || exit 1
fi
exit 0
