"""Ray Serve on a CPU: the process that deploys a workload's models.

Each model is a deployment with a replica for each core, one thread a request; Ray's scheduler is
told that replicas take a share of a core, so that all of them fit. `rayserve_app.py` is what its
users write. Set up by `scripts/peers/setup_rayserve.sh`.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tenantdl.bench.serving.environments import environment
from tenantdl.bench.serving.models import Model, onnx_file
from tenantdl.lifetime import end_with_parent

_APP = Path(__file__).with_name("rayserve_app.py")


def write_task(models: Mapping[str, Model], cores: int, file: Path, port: int) -> None:
    """What the process is to serve."""
    task = {
        "port": port,
        "cores": cores,
        "models": {name: os.fspath(onnx_file(model).resolve()) for name, model in models.items()},
    }
    file.write_bytes(msgspec.json.encode(task))


def start(task: Path) -> subprocess.Popen[bytes]:
    """Ray, and Serve on it; it inherits the caller's cores. What it has to say goes to
    `rayserve.log` beside the task."""
    home = environment("rayserve")
    log = (task.parent / "rayserve.log").open("wb")
    return subprocess.Popen(
        [home / "bin" / "python3", _APP, task],
        # Replicas decode tensors as the other peers do: with the daemon's own codec.
        env=os.environ
        | {"PYTHONPATH": os.fspath(Path(__file__).parents[3]), "RAY_USAGE_STATS_ENABLED": "0"},
        cwd=task.parent,
        stdout=log,
        stderr=log,
        start_new_session=True,
        preexec_fn=end_with_parent,
    )
