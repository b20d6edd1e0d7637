"""Checks Kubernetes manifests: `check-kubernetes.py FOLDER`. See check-kubernetes.sh."""

import sys
from pathlib import Path

import kubernetes_validate
import yaml

# Fields that we use are in all versions between these.
VERSIONS = ["1.27", "1.37"]
# The time in which a consumer finishes what it holds, in seconds.
DRAIN_S = 7


def documents(folder):
    """Each document with the name of its file."""
    for path in sorted(folder.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield path.name, document


def problems_of_pod(spec):
    """What is wrong with the pods of a Deployment."""
    pod = spec["template"]["spec"]
    if spec["selector"]["matchLabels"] != spec["template"]["metadata"]["labels"]:
        yield "the selector does not match the pods' labels"
    if not pod["securityContext"].get("runAsNonRoot") or pod.get("automountServiceAccountToken") is not False:
        yield "runs as root, or has a token for the API"
    if pod["terminationGracePeriodSeconds"] <= DRAIN_S:
        yield "is killed before a consumer has finished what it holds"
    for container in pod["containers"]:
        security = container["securityContext"]
        if not security["readOnlyRootFilesystem"] or security["allowPrivilegeEscalation"]:
            yield "may write to its file system, or gain privileges"
        if security["capabilities"]["drop"] != ["ALL"]:
            yield "has capabilities"
        ports = {port["name"] for port in container["ports"]}
        for probe in ["readinessProbe", "livenessProbe"]:
            if container[probe]["httpGet"]["port"] not in ports:
                yield f"its {probe} asks no port of its own"
        if not {"requests", "limits"} <= container["resources"].keys():
            yield "has no limits"
        for variable in container["env"]:
            value = variable.get("value", "")
            if "://" in value and "@" in value:
                yield f"{variable['name']} has a password"
            if variable["name"].endswith("_FILE") and not value.startswith("/run/secrets/oncecast/"):
                yield f"{variable['name']} is not in the folder of secrets"


def problems_of_all(found):
    """What does not fit together."""
    service = found["Service", "oncecast-consumers"]["spec"]
    consumers = found["Deployment", "oncecast-consumers"]["spec"]
    dispatchers = found["Deployment", "oncecast-dispatchers"]["spec"]
    if service["clusterIP"] != "None":
        yield "the Service is not headless: its name would have one address"
    if service["selector"] != consumers["selector"]["matchLabels"]:
        yield "the Service does not select the consumers"
    environment = {
        variable["name"]: variable.get("value") for variable in dispatchers["template"]["spec"]["containers"][0]["env"]
    }
    port = service["ports"][0]["port"]
    if environment["ONCECAST_CONSUMERS"] != f"dns:oncecast-consumers:{port}":
        yield "the dispatchers do not follow the Service"
    budget = found["PodDisruptionBudget", "oncecast-dispatchers"]["spec"]
    if budget["selector"] != dispatchers["selector"] or not 0 < budget["minAvailable"] < dispatchers["replicas"]:
        yield "the budget does not keep one of several dispatchers"
    budget = found["PodDisruptionBudget", "oncecast-consumers"]["spec"]
    if budget["selector"] != consumers["selector"] or budget["maxUnavailable"] >= consumers["replicas"]:
        yield "the budget does not keep some of the consumers"
    for name in ["oncecast-consumers", "oncecast-dispatchers"]:
        policy = found["NetworkPolicy", name]["spec"]
        if policy["podSelector"] != found["Deployment", name]["spec"]["selector"]:
            yield f"the policy {name} does not select its pods"


def main():
    """Exits with 1 if something is wrong."""
    folder = Path(sys.argv[1])
    found, wrong = {}, []
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    files = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    if files != set(kustomization["resources"]):
        wrong.append("kustomization.yaml does not name each file")
    for file, document in documents(folder):
        if document["kind"] == "Kustomization":
            continue
        kind, name = document["kind"], document["metadata"]["name"]
        found[kind, name] = document
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                wrong.append(f"{file}: {kind} {name}, Kubernetes {version}: {error.message}")
        if kind == "Deployment":
            wrong += [f"{file}: {name}: {problem}" for problem in problems_of_pod(document["spec"])]
    wrong += problems_of_all(found)
    for problem in wrong:
        print(f"check-kubernetes: {problem}", file=sys.stderr)
    if wrong:
        sys.exit(1)
    print(f"{len(found)} manifests are valid for Kubernetes {' and '.join(VERSIONS)}")


main()
