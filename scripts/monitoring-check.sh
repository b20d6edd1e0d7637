#!/usr/bin/env bash
# Checks the monitoring files: that they are valid, that each alert fires when it should, and that Prometheus gets data
# from a real cluster for every query of the dashboard. What can't be checked here prints `skipped: …`.
set -euo pipefail
cd "$(dirname "$0")/.."

have() {
    command -v "$1" >/dev/null 2>&1
}

skip() {
    echo "skipped: monitoring-check: $*"
}

have_yaml() {
    python3 -c 'import yaml' 2>/dev/null
}

# The service that the package starts would scrape nothing and occupy a port.
stop_service() {
    if [ -d /run/systemd/system ] && have systemctl; then
        systemctl disable --now prometheus >/dev/null 2>&1 || true
    elif [ -x /etc/init.d/prometheus ]; then
        /etc/init.d/prometheus stop >/dev/null 2>&1 || true
    fi
}

if [ "$(id -u)" -eq 0 ] && have apt-get; then
    if ! have promtool || ! have prometheus; then
        echo 'installing prometheus'
        apt-get update >/dev/null ||
            echo 'monitoring-check: apt-get update failed, continuing with the known package lists' >&2
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends prometheus >/dev/null && stop_service
    fi
    have_yaml ||
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-yaml >/dev/null || true
fi

if have_yaml; then
    python3 - compose*.yml docker/loki.yml docker/prometheus/*.yml docker/grafana/provisioning/*/*.yml <<'PYTHON'
import sys

import yaml


class Strict(yaml.SafeLoader):
    """Says so when a key is there twice, where YAML's readers take the last one."""

    def construct_mapping(self, node, deep=False):
        # Before merging, since a key may override a merged one.
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = {key for key in keys if keys.count(key) > 1} if not getattr(node, "merged", False) else set()
        if twice:
            raise yaml.YAMLError(f"{node.start_mark}: twice: {', '.join(map(str, twice))}")
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node):
        super().flatten_mapping(node)
        node.merged = True


for path in sys.argv[1:]:
    with open(path) as file:
        yaml.load(file, Strict)
    print(f"{path}: valid YAML")
PYTHON
else
    skip 'YAML files are not validated: python3 with its yaml module is missing'
fi

# The profiles are named one by one, since Compose v1 does not support `*`.
profiles=(--profile load --profile audit --profile monitoring --profile chaos)
composes=0
if docker compose version >/dev/null 2>&1; then
    docker compose "${profiles[@]}" config --quiet
    composes=1
fi
if have docker-compose; then
    docker-compose "${profiles[@]}" config --quiet
    composes=1
fi
if [ "$composes" -eq 1 ]; then
    echo 'compose.yml: valid for Compose'
else
    skip 'compose.yml: docker compose is missing'
fi

if have loki; then loki -config.file=docker/loki.yml -verify-config; else skip 'docker/loki.yml: loki is missing'; fi
if have alloy; then alloy validate docker/config.alloy; else skip 'docker/config.alloy: alloy is missing'; fi

if have promtool; then
    promtool check config docker/prometheus/prometheus.yml
    # The examples of the manual, whose files are elsewhere.
    awk '/^```yaml$/ { on = 1; text = ""; next } /^```$/ { if (on && text ~ /^scrape_configs:/) print text; on = 0 }
        on { text = text $0 "\n" }' docs/OPERATIONS.md >target/manual-prometheus.yml
    test -s target/manual-prometheus.yml
    promtool check config --syntax-only target/manual-prometheus.yml
    promtool check rules docker/prometheus/alerts.yml
    promtool test rules docker/prometheus/alerts_test.yml
else
    skip 'rules: promtool is missing'
fi

# These tests also check the dashboard's JSON.
if have prometheus; then
    cargo test --locked --test integration monitoring:: -- --include-ignored
else
    skip 'queries: prometheus is missing'
    cargo test --locked --test integration monitoring::
fi
