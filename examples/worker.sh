#!/bin/sh
# A worker that is started for each message: oncecast-consumer --handler exec --exec-per-message -- ./worker.sh
# The payload is on standard input. The exit status is 0 with the result on standard output, 75 to retry, or 65 to
# reject; the last line on standard error is the reason.
payload=$(cat)
if [ -z "$payload" ]; then
    echo 'the payload is empty' >&2
    exit 65
fi
checksum=$(printf %s "$payload" | cksum) || exit 75
printf '{"message":"%s","delivery":%s,"checksum":"%s"}' "$ONCECAST_ID" "$ONCECAST_DELIVERY" "$checksum"
