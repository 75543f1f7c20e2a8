"""MLServer on a CPU: a folder of model settings for a workload, and the process.

As many inference workers as cores, each a process that has every model, one thread a request. It
has no onnxruntime of its own: `mlserver_model.py` is the custom runtime that its users write. Over
HTTP it takes tensors as JSON only. Set up by `scripts/peers/setup_mlserver.sh`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tenantdl.bench.serving.environments import environment
from tenantdl.bench.serving.models import Model, onnx_file
from tenantdl.lifetime import end_with_parent

_RUNTIME = Path(__file__).with_name("mlserver_model.py")


def write_folder(
    models: Mapping[str, Model], cores: int, folder: Path, ports: Sequence[int]
) -> None:
    """Settings of the server, and of each model, in `folder`. `ports`: HTTP, gRPC, metrics."""
    folder.mkdir()
    shutil.copy(_RUNTIME, folder)
    http, grpc, metrics = ports
    server = {
        "host": "127.0.0.1",
        "http_port": http,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "parallel_workers": cores,
        "debug": False,
    }
    (folder / "settings.json").write_bytes(msgspec.json.encode(server))
    for name, model in models.items():
        scalars = [tensor.name for tensor in model.plan.inputs if not tensor.shape]
        settings = {
            "name": name,
            "implementation": "mlserver_model.OnnxRuntime",
            "parameters": {
                "uri": os.fspath(onnx_file(model).resolve()),
                "extra": {"scalars": scalars},
            },
        }
        (folder / name).mkdir()
        (folder / name / "model-settings.json").write_bytes(msgspec.json.encode(settings))


def start(folder: Path) -> subprocess.Popen[bytes]:
    """mlserver for the models in `folder`; it inherits the caller's cores. What it has to say goes
    to `mlserver.log` beside the folder."""
    home = environment("mlserver")
    log = (folder.parent / "mlserver.log").open("wb")
    return subprocess.Popen(
        [home / "bin" / "mlserver", "start", folder],
        env={**os.environ, "PYTHONPATH": os.fspath(folder), "OMP_NUM_THREADS": "1"},
        cwd=folder,
        stdout=log,
        stderr=log,
        start_new_session=True,
        preexec_fn=end_with_parent,
    )
