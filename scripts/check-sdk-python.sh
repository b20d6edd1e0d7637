#!/usr/bin/env bash
# Checks the Python package in sdk/python: types, tests, and the wheel. Builds in target/sdk-python and leaves nothing
# in sdk/. The tests with real dispatchers need redis-server and the programs, in ONCECAST_BIN, target/release or
# target/debug; without them this fails, unless ONCECAST_SKIP_END_TO_END=1. PYTHON names another Python; the default is
# python3.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
WORK=$PWD/target/sdk-python
WHEEL_FILES='oncecast/__init__.py
oncecast/consumer.py
oncecast/delivery.py
oncecast/desk.py
oncecast/files.py
oncecast/frames.py
oncecast/lanes.py
oncecast/link.py
oncecast/pool.py
oncecast/py.typed
oncecast/retry.py
oncecast/secret.py
oncecast/server.py
oncecast/sums.py
oncecast/tls.py'

fail() {
    echo "check-sdk-python: $*" >&2
    exit 1
}

# Whether a folder holds what the tests with real dispatchers need.
has_programs() {
    [[ -x $1/oncecast-dispatcher && -x $1/oncecast-publisher && -x $1/oncecast ]]
}

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 9))' || fail 'Python 3.9 or later is needed'
if [[ -z ${ONCECAST_BIN:-} ]]; then
    for folder in target/release target/debug; do
        if has_programs "$folder"; then
            export ONCECAST_BIN=$PWD/$folder
            break
        fi
    done
fi
selection=()
if [[ ${ONCECAST_SKIP_END_TO_END:-} == 1 ]]; then
    echo 'left out: the tests with real dispatchers'
    selection=(--ignore sdk/python/tests/test_end_to_end.py)
else
    has_programs "${ONCECAST_BIN:-/nonexistent}" || fail 'oncecast, oncecast-dispatcher or oncecast-publisher is
missing: run cargo build, or set ONCECAST_BIN to their folder'
    command -v redis-server >/dev/null || fail 'there is no redis-server: run sh scripts/ensure-redis.sh'
    command -v openssl >/dev/null || fail 'there is no openssl, which makes the certificates for the tests of TLS'
fi

# A copy, because setuptools writes beside the sources.
rm -rf "$WORK/source" "$WORK/wheel"
mkdir -p "$WORK/source"
cp -r sdk/python/pyproject.toml sdk/python/README.md sdk/python/src "$WORK/source"
cp LICENSE-APACHE LICENSE-MIT "$WORK/source"
find "$WORK/source" \( -name __pycache__ -o -name '*.egg-info' \) -prune -exec rm -rf {} +

export PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
venv=$WORK/venv-$("$PYTHON" -c 'import platform; print(platform.python_version())')
[[ -x $venv/bin/python ]] || "$PYTHON" -m venv "$venv"
python=$venv/bin/python
"$python" -m pip install --quiet 'pytest>=7' 'mypy>=1.8' 'build>=1' 'websockets>=13'

"$python" -m build --wheel --outdir "$WORK/wheel" "$WORK/source" >"$WORK/build.log" 2>&1 ||
    fail "$(cat "$WORK/build.log")"
wheel=$(echo "$WORK"/wheel/*.whl)
listed=$("$python" -m zipfile --list "$wheel" | awk 'NR > 1 { print $1 }')
shown=$(grep -v 'dist-info/' <<<"$listed" | sort)
[[ $shown == "$WHEEL_FILES" ]] || fail "the wheel does not hold exactly the package:
$(diff <(echo "$WHEEL_FILES") <(echo "$shown"))"
for license in LICENSE-APACHE LICENSE-MIT; do
    grep -q "dist-info/.*$license\$" <<<"$listed" || fail "the wheel lacks $license"
done
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
[[ $wheel == */oncecast-"$version"-py3-none-any.whl ]] || fail "${wheel##*/} does not have the version $version"
echo "the wheel is ${wheel##*/}"

# Tests and types are checked as a user has them: with the wheel.
"$python" -m pip install --quiet --force-reinstall --no-deps "$wheel"
(cd "$WORK" && "$python" -m mypy --strict --package oncecast)
(cd "$WORK" && "$python" -m mypy --strict ../../sdk/python/tests/typed_handlers.py)
long=$(grep -rnE '^.{121,}' sdk/python --include='*.py' || true)
[[ -z $long ]] || fail "lines of more than 120 characters:
$long"
printed=$(grep -rnE '\bprint\(' sdk/python/src || true)
[[ -z $printed ]] || fail "a library does not print:
$printed"
"$python" -m pytest --quiet -p no:cacheprovider sdk/python/tests "${selection[@]}"
