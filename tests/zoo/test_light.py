"""Topologies of the onnx wheel, refilled with weights that tell kernels apart."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tenantdl import zoo

QUICK = [f"light_{model}" for model in ("shufflenet", "squeezenet", "inception_v1", "densenet121")]
REST = [
    f"light_{model}" for model in ("resnet50", "inception_v2", "vgg19", "bvlc_alexnet", "zfnet512")
]


def assert_alive(name: str, run) -> None:
    model = zoo.build(name)
    onnx.checker.check_model(model)
    outputs = []
    for seed in (0, 1):
        (value,) = run(model, zoo.sample_inputs(name, seed=seed)).values()
        assert np.isfinite(value).all()
        outputs.append(value.ravel())
    assert outputs[0].max() > 2 * np.median(np.abs(outputs[0]))
    assert np.abs(outputs[0] - outputs[1]).mean() > 0.05 * np.abs(outputs[0]).mean()


@pytest.mark.parametrize("name", QUICK)
def test_filled_models_are_alive(name, run) -> None:
    assert_alive(name, run)


@pytest.mark.slow
@pytest.mark.parametrize("name", REST)
def test_other_filled_models_are_alive(name, run) -> None:
    assert_alive(name, run)


def test_topology_stays_the_files_own() -> None:
    ours, theirs = zoo.build("light_squeezenet"), onnx.load(zoo.path("light_squeezenet"))
    kept = [node for node in theirs.graph.node if node.op_type != "ConstantOfShape"]
    assert list(ours.graph.node) == kept
    assert [port.name for port in ours.graph.input] == ["data_0"]
    assert ours.opset_import == theirs.opset_import


def test_unfilled_weights_are_constants() -> None:
    """Why the files are refilled at all."""
    kinds = {node.op_type for node in onnx.load(zoo.path("light_squeezenet")).graph.node}
    assert "ConstantOfShape" in kinds


def test_seed_decides_the_weights() -> None:
    first, again, other = (zoo.build("light_squeezenet", seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
