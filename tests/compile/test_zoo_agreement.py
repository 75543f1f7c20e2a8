"""Every model of the zoo, compiled, run, served, compared with onnxruntime on sample inputs.

The bar: max|Δ| ≤ 1e-4 × max|output| in float32, batch 1, and 4 where the batch is dynamic.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tritonclient.http as triton
from numpy.typing import NDArray
from tritonclient.utils import np_to_triton_dtype

import tenantdl
from tenantdl import zoo
from tenantdl.compile.pipeline import compile_model
from tenantdl.daemon import running_daemon
from tenantdl.errors import UserError
from tenantdl.load.workload import parse_workload

Array = NDArray[Any]

TOLERANCE = 1e-4
SERVED = ("ppocr_cls",)  # starting a daemon takes seconds; the others are served in slow tests
QUICK = ("ppocr_cls", "magika", "minilm_l6", "silero_vad_sequence")


def _session(model: onnx.ModelProto | Path, folder: Path) -> onnxruntime.InferenceSession:
    """Models near protobuf's 2 GB limit go through a file."""
    file = model
    if isinstance(model, onnx.ModelProto):
        file = folder / "model.onnx"
        onnx.save(model, file)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(os.fspath(file), options, ["CPUExecutionProvider"])


def served(name: str, bundle: Path, inputs: dict[str, Array], outputs: list[str]) -> list[Array]:
    """One inference through the daemon by Triton's HTTP client, binary tensors both ways."""
    workload = parse_workload(f'[[tenant]]\nname = "t"\nbundle = "{bundle}"\nqos_ms = 60000')
    tensors = []
    for key, value in inputs.items():
        tensor = triton.InferInput(key, list(value.shape), np_to_triton_dtype(value.dtype))
        tensor.set_data_from_numpy(value)
        tensors.append(tensor)
    with running_daemon(workload) as running:
        client = triton.InferenceServerClient(
            running.url.removeprefix("http://"), network_timeout=120, connection_timeout=120
        )
        answer = client.infer(name, tensors)
        client.close()
    return [answer.as_numpy(output) for output in outputs]


def check(name: str, batch: int, folder: Path, *, serve: bool) -> None:
    try:
        model = zoo.resolve(name)
        inputs = zoo.sample_inputs(name, batch)
    except UserError as error:
        if "pip install" in str(error):
            pytest.skip(str(error))
        raise
    shapes = {key: value.shape for key, value in inputs.items()}
    compile_model(model, folder / "bundle", name=name, batch=batch, shapes=shapes)
    results = tenantdl.load(folder / "bundle").run(inputs)
    session = _session(model, folder)
    outputs = [output.name for output in session.get_outputs()]
    for output, expected in zip(outputs, session.run(outputs, inputs), strict=True):
        assert results[output].shape == expected.shape
        assert results[output].dtype == expected.dtype
        error = np.max(np.abs(results[output].astype(np.float64) - expected), initial=0.0)
        assert error <= TOLERANCE * np.max(np.abs(expected), initial=1e-30), output
    if serve:
        answers = served(name, folder / "bundle", inputs, outputs)
        for output, answer in zip(outputs, answers, strict=True):
            np.testing.assert_allclose(answer, results[output], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", QUICK)
def test_real_models(name: str, tmp_path: Path) -> None:
    check(name, 1, tmp_path, serve=name in SERVED)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("name", zoo.names())
def test_all_models(name: str, batch: int, tmp_path: Path) -> None:
    if batch > 1 and zoo.entry(name).batch is not None:
        pytest.skip("its batch is fixed")
    check(name, batch, tmp_path, serve=True)
