"""The manifests, built by kubectl and checked against Kubernetes' published schemas."""

import re
import subprocess

import pytest
import yaml

from tests.helpers import graceful_seconds, known_settings
from tests.running_server import ROOT
from tests.tools import tool

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def built():
    return subprocess.check_output([tool("kubectl"), "kustomize", ROOT / "deploy" / "kubernetes"])


@pytest.fixture(scope="module")
def resources(built):
    return {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(built)}


@pytest.fixture(scope="module")
def deployment(resources):
    return resources["Deployment", "credentials"]["spec"]


@pytest.fixture(scope="module")
def pods(resources, deployment):
    """The pod of each workload."""
    job = resources["Job", "credentials-migrate"]["spec"]
    return [deployment["template"]["spec"], job["template"]["spec"]]


# preStop.sleep is what needs 1.30
@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_the_manifests_follow_the_schemas(built, tmp_path, version):
    manifests = tmp_path / "manifests.yaml"
    manifests.write_bytes(built)
    command = [tool("kubernetes-validate"), "--strict", "-k", version, manifests]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    said = checked.stdout + checked.stderr
    assert checked.returncode == 0, said
    unknown = [line for line in said.splitlines() if "find schema" in line]
    assert ["ServiceMonitor" in line for line in unknown] == [True]


def test_a_misspelt_member_would_be_found(built, tmp_path):
    manifests = tmp_path / "manifests.yaml"
    manifests.write_bytes(built.replace(b"readOnlyRootFilesystem", b"readonlyRootFilesystem"))
    command = [tool("kubernetes-validate"), "--strict", manifests]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_no_pod_has_privileges_or_a_writable_filesystem(pods):
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        (mount,) = container["volumeMounts"]
        assert mount["mountPath"] == "/tmp"  # noqa: S108  the only writable path


def test_the_user_is_that_of_the_image(pods):
    dockerfile = (ROOT / "deploy" / "image" / "Dockerfile").read_text()
    (user,) = re.findall(r"^USER (\d+):\d+$", dockerfile, re.MULTILINE)
    assert [pod["securityContext"]["runAsUser"] for pod in pods] == [int(user)] * 2


def test_the_probes_use_the_right_endpoints(deployment):
    (container,) = deployment["template"]["spec"]["containers"]
    asked = {
        each: container[each]["httpGet"]["path"]
        for each in ("livenessProbe", "readinessProbe", "startupProbe")
    }
    assert asked == {
        "livenessProbe": "/healthz", "readinessProbe": "/readyz", "startupProbe": "/healthz"
    }  # fmt: skip


def test_a_pod_has_time_to_answer_what_it_has_accepted(deployment):
    pod = deployment["template"]["spec"]
    pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > pause + graceful_seconds()


def test_every_variable_is_a_setting_and_every_secret_a_reference(resources, pods):
    named = set(resources["ConfigMap", "credentials"]["data"])
    for pod in pods:
        for variable in pod["containers"][0]["env"]:
            named.add(variable["name"])
            secret = variable["name"] in {"DATABASE_URL", "DIGEST_KEY", "RATELIMIT_STORAGE_URL"}
            assert ("valueFrom" in variable) is secret
    assert named <= known_settings()
    assert "Secret" not in {kind for kind, _ in resources}


def test_every_selector_matches_the_pods(resources, deployment):
    labels = deployment["template"]["metadata"]["labels"]
    service = resources["Service", "credentials"]
    monitor = resources["ServiceMonitor", "credentials"]["spec"]
    for selector in (
        service["spec"]["selector"],
        deployment["selector"]["matchLabels"],
        resources["PodDisruptionBudget", "credentials"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert {each["port"] for each in monitor["endpoints"]} <= {
        each["name"] for each in service["spec"]["ports"]
    }
    # the job label that the alerts use
    assert service["metadata"]["labels"][monitor["jobLabel"]] == "leadvibe-credentials"


def test_no_pod_admits_itself_by_a_label(resources):
    policy = resources["NetworkPolicy", "credentials"]["spec"]
    peers = [peer for rule in policy["ingress"] for peer in rule["from"]]
    peers += [peer for rule in policy["egress"] for peer in rule["to"] if "ipBlock" not in peer]
    assert all(peer["namespaceSelector"].get("matchLabels") for peer in peers)


def test_every_pod_is_under_the_network_policy(resources, deployment):
    policy = resources["NetworkPolicy", "credentials"]["spec"]
    (expression,) = policy["podSelector"]["matchExpressions"]
    job = resources["Job", "credentials-migrate"]["spec"]
    for template in (deployment["template"], job["template"]):
        assert template["metadata"]["labels"][expression["key"]] in expression["values"]
    assert resources["NetworkPolicy", "default-deny"]["spec"] == {
        "podSelector": {}, "policyTypes": ["Ingress", "Egress"]
    }  # fmt: skip
