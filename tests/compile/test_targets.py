"""One network through every family of kernels, for other CPUs than this one: AVX2 runs here and
agrees with onnxruntime, AArch64 becomes an object file (there is no machine to run it)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tenantdl.compile.frontend import load_graph
from tenantdl.compile.lower import lower
from tenantdl.compile.passes import build
from tenantdl.compile.rewrite import rewrite
from tenantdl.compile.target import parse_target
from tests.nets import Net, check

KINDS = {"conv2d", "conv2d_winograd", "depthwise_conv2d", "pool", "dense", "softmax"}


def _network() -> Net:
    net = Net()
    x = net.input(1, 3, 64, 64)
    pads = {"pads": [1] * 4}
    y = net.op("Relu", net.op("Conv", x, net.weight(32, 3, 3, 3), strides=[2, 2], **pads))
    z = net.op("Relu", net.op("Conv", y, net.weight(32, 32, 3, 3), **pads))
    y = net.op("MaxPool", net.op("Add", y, z), kernel_shape=[2, 2], strides=[2, 2])
    y = net.op("Relu", net.op("Conv", y, net.weight(32, 1, 3, 3), group=32, **pads))
    y = net.op("Conv", y, net.weight(512, 32, 1, 1), strides=[4, 4])
    y = net.op("Sigmoid", net.op("Conv", y, net.weight(48, 512, 1, 1)))  # few pixels: chunks
    flat = net.op("Flatten", net.op("GlobalAveragePool", y))
    wide = net.op("Gemm", flat, net.weight(48, 40), net.weight(40))
    norm = net.op("LayerNormalization", wide, net.const(np.ones(40)), net.const(np.zeros(40)))
    net.output(net.op("Softmax", norm, axis=-1))
    return net


def test_avx2_runs_and_agrees(tmp_path: Path) -> None:
    summary = check(_network(), tmp_path, tolerance=2e-5, target="x86_64:haswell")
    assert summary.kinds.keys() >= KINDS


@pytest.mark.parametrize("text", ["aarch64", "x86_64:skylake-avx512", "x86_64:x86-64"])
def test_every_family_compiles_for(text: str, tmp_path: Path) -> None:
    target = parse_target(text)
    program = lower(rewrite(load_graph(_network().model())), target, 2)
    assert KINDS - {"conv2d_winograd"} <= {op.kind for op in program.operators}
    functions = {op.kernel.key: op.kernel.func for op in program.operators}
    build(functions, target, tmp_path / "kernels.o", flat=True)
    machine = {"aarch64": 183, "x86_64": 62}[target.arch]  # of an ELF header
    header = (tmp_path / "kernels.o").read_bytes()[:20]
    assert header[:4] == b"\x7fELF"
    assert int.from_bytes(header[18:20], "little") == machine
