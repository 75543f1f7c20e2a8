"""The listing agrees with what is built and shipped."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest

from tenantdl import zoo
from tenantdl.errors import UserError

PACKAGED = [entry.name for entry in zoo.entries() if entry.kind == "packaged"]


def test_names_are_unique_and_found() -> None:
    assert len(set(zoo.names())) == len(zoo.names())
    assert all(zoo.entry(name).name == name for name in zoo.names())
    with pytest.raises(UserError, match=r"resnet51: .*resnet50"):
        zoo.entry("resnet51")


def test_the_papers_seven_models_are_there() -> None:
    seven = {
        "resnet50",
        "googlenet",
        "efficientnet_b0",
        "mobilenet_v2",
        "tiny_yolov2",
        "ssd_resnet34",
        "bert_large",
    }
    assert seven <= {entry.name for entry in zoo.entries() if entry.kind == "built"}


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_b0", "googlenet", "minilm_l6"])
def test_figures_are_those_of_the_graph(name, count, packaged) -> None:
    entry = zoo.entry(name)
    if entry.source:
        try:
            entry.source.path()
        except UserError as error:
            pytest.skip(str(error))
    parameters, flops = count(zoo.build(name), zoo.sample_inputs(name))
    assert parameters == entry.parameters
    assert flops / 1e9 == pytest.approx(entry.gflops, rel=0.01)


@pytest.mark.parametrize("name", ["ppocr_rec", "ppocr_cls", "magika", "silero_vad_sequence"])
def test_figures_are_those_of_the_file(name, count, packaged) -> None:
    entry = zoo.entry(name)
    parameters, flops = count(onnx.load(packaged(name)), zoo.sample_inputs(name))
    assert parameters == entry.parameters
    assert flops / 1e9 == pytest.approx(entry.gflops, rel=0.02)


@pytest.mark.parametrize("name", PACKAGED)
def test_inputs_are_those_of_the_file(name, packaged) -> None:
    model = onnx.load(packaged(name))
    ports = {port.name: port.type.tensor_type for port in model.graph.input}
    assert {port.name for port in zoo.entry(name).inputs} == set(ports)
    for port in zoo.entry(name).inputs:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(ports[port.name].elem_type)
        assert np.dtype(port.dtype) == dtype
        assert len(port.shape) == len(ports[port.name].shape.dim)


def test_listing_and_sampling_need_no_onnx() -> None:
    code = (
        "import sys; from tenantdl import zoo; zoo.entries(); zoo.sample_inputs('bert_large');"
        "assert 'onnx' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
