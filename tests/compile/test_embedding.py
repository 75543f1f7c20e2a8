"""Gather against onnxruntime: axes, negative indices, tails; foreign indices stay inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nets import Net, call_kernel, check

from tenantdl.compile.build import build_library
from tenantdl.compile.kernels.embedding import GatherSpec, gather
from tenantdl.compile.target import parse_target

# table, axis, indices
CASES = [
    ((50, 64), 0, (2, 7)),
    ((50, 33), 0, (5,)),
    ((6, 3, 4), 0, (4,)),
    ((3, 9, 20), 1, (2, 2)),
    ((2, 5, 8), 2, ()),
]


@pytest.mark.parametrize("kind", [np.int64, np.int32])
def test_axes_and_tails(tmp_path: Path, kind: type) -> None:
    net = Net()
    for shape, axis, count in CASES:
        indices = net.const(net.rng.integers(-shape[axis], shape[axis], count), kind)
        rows = net.op("Gather", net.input(*shape), indices, axis=axis)
        last = shape[-1] if axis < len(shape) - 1 else shape[-2]
        net.output(rows, net.op("Relu", net.op("Add", rows, net.weight(last))))
    summary = check(net, tmp_path)
    assert summary.kinds["gather"] == len(CASES)


def test_embeddings_take_their_sum_along(tmp_path: Path) -> None:
    net = Net()
    ids = [net.const(net.rng.integers(0, 30, (1, 12)), np.int64) for _ in range(2)]
    words, types = (net.op("Gather", net.input(30, 48), i, axis=0) for i in ids)
    places = net.const(net.rng.standard_normal((1, 12, 48)))
    net.output(net.op("Add", net.op("Add", words, types), places))
    assert check(net, tmp_path).kinds == {"gather": 2}


def test_foreign_indices_are_clamped(tmp_path: Path) -> None:
    target = parse_target("native")
    kernel = gather(GatherSpec(1, 5, 4, 4, "int64", target.lanes))
    build_library([kernel], target, tmp_path / "gather.so")
    table = np.arange(20, dtype=np.float32).reshape(1, 20)
    indices = np.array([-(2**62), -6, 5, 2**62], np.int64)
    out = np.zeros((4, 4), np.float32)
    call_kernel(tmp_path / "gather.so", kernel.key, table, indices, out)
    np.testing.assert_array_equal(out[:, 0], [0, 0, 16, 16])


def test_a_vector_spans_rows_of_gathered_elements(tmp_path: Path) -> None:
    """Frames of a signal times a window: rows of one element, a vector of sixteen."""
    net = Net()
    places = net.const(np.arange(15)[:, None] * 8 + np.arange(16)[None, :], np.int64)
    frames = net.op("Gather", net.input(1, 128), places, axis=1)
    net.output(net.op("Mul", frames, net.weight(16)))
    assert check(net, tmp_path).kinds == {"gather": 1}
