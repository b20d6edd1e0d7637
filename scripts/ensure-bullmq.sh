#!/bin/sh
# Installs BullMQ into target/bullmq, for the kind `bullmq` of `oncecast bench`.
set -eu
cd "$(dirname "$0")/.."

# Versions, so that figures can be compared.
PACKAGES='bullmq@6.7.0 ioredis@5'

if [ ! -d target/bullmq/node_modules/bullmq ]; then
    command -v npm >/dev/null || {
        echo 'ensure-bullmq: npm is missing: install Node 20 or newer' >&2
        exit 1
    }
    echo 'installing bullmq'
    mkdir -p target/bullmq
    # shellcheck disable=SC2086
    npm install --prefix target/bullmq --silent --no-audit --no-fund $PACKAGES
fi
