#!/usr/bin/env bash
# Checks deploy/kubernetes: each manifest against the schemas of the oldest and of the newest version supported of the
# API, and against rules of ours. Without Python's venv or a package index the check is skipped, except in CI.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=target/kubernetes
if ! "$venv/bin/python" -c 'import kubernetes_validate, yaml' 2>/dev/null; then
    rm -rf "$venv"
    # It brings the schemas, so nothing more is fetched.
    python3 -m venv "$venv" &&
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check 'kubernetes-validate==1.37.0' || {
        echo 'SKIPPED: deploy/kubernetes is not checked, kubernetes-validate is missing'
        [ -z "${CI:-}" ] || exit 1
        exit 0
    }
fi
"$venv/bin/python" scripts/check-kubernetes.py deploy/kubernetes
