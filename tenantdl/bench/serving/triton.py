"""Triton Inference Server on a CPU: a model repository for a workload, and the process.

Stock: every model has an instance for each core, one thread each (fewer threads and more instances
is what its own performance guide advises for CPUs). Static: models are pinned to the cores of their
part, an instance for each of its cores. Set up by `scripts/peers/setup_triton.sh`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tenantdl.bench.serving.environments import environment, packages
from tenantdl.bench.serving.models import Model, onnx_file
from tenantdl.bundle.manifest import Tensor
from tenantdl.ids import CoreId
from tenantdl.lifetime import end_with_parent
from tenantdl.load.protocol import datatype

# Triton has no scalars where it does not batch.
SCALARS_AS = (1,)
_MODEL = Path(__file__).with_name("triton_model.py")


def write_repository(
    models: Mapping[str, Model], parts: Mapping[str, Sequence[CoreId]], cores: int, folder: Path
) -> None:
    """A model repository in `folder`. `parts`: cores of the models that are pinned."""
    for name, model in models.items():
        place = folder / name / "1"
        place.mkdir(parents=True)
        shutil.copy(_MODEL, place / "model.py")
        (folder / name / "config.pbtxt").write_text(
            _config(name, model, parts.get(name, ()), cores)
        )


def start(repository: Path, port: int, grpc_port: int) -> subprocess.Popen[bytes]:
    """tritonserver on these ports of the loopback interface; it inherits the caller's cores.
    What it has to say goes to `triton.log` beside the repository."""
    folder = environment("triton")
    server = packages(folder) / "pytriton" / "tritonserver"
    python = folder / "bin" / "python3"
    told = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"
    library = subprocess.run([python, "-c", told], capture_output=True, text=True, check=True)
    libraries = [library.stdout.strip(), os.environ.get("LD_LIBRARY_PATH", "")]
    command = [
        os.fspath(server / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={server / 'backends'}",
        "--http-address=127.0.0.1",
        f"--http-port={port}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={grpc_port}",
        "--allow-metrics=false",
        "--log-info=false",
    ]
    log = (repository.parent / "triton.log").open("wb")
    return subprocess.Popen(
        command,
        env=os.environ
        | {
            "LD_LIBRARY_PATH": ":".join(filter(None, libraries)),
            "PYTHONPATH": os.fspath(packages(folder)),
            "PATH": f"{folder / 'bin'}:{os.environ.get('PATH', '')}",
        },
        stdout=log,
        stderr=log,
        start_new_session=True,
        preexec_fn=end_with_parent,
    )


def _config(name: str, model: Model, pinned: Sequence[CoreId], cores: int) -> str:
    """config.pbtxt of one model."""
    parameters = {
        "file": os.fspath(onnx_file(model).resolve()),
        "threads": "1",
        "cores": ",".join(map(str, pinned)),
        "scalars": ",".join(tensor.name for tensor in model.plan.inputs if not tensor.shape),
    }
    lines = [f"name: {_quoted(name)}", 'backend: "python"', "max_batch_size: 0"]
    lines += [_port("input", tensor) for tensor in model.plan.inputs]
    lines += [_port("output", tensor) for tensor in model.plan.outputs]
    lines.append(f"instance_group [{{kind: KIND_CPU count: {len(pinned) or cores}}}]")
    lines += [
        f"parameters {{key: {_quoted(key)} value {{string_value: {_quoted(value)}}}}}"
        for key, value in parameters.items()
    ]
    return "\n".join(lines) + "\n"


def _port(side: str, tensor: Tensor) -> str:
    dims = list(tensor.shape or SCALARS_AS)
    kind = f"TYPE_{datatype(tensor.dtype)}"
    return f"{side} [{{name: {_quoted(tensor.name)} data_type: {kind} dims: {dims}}}]"


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()
