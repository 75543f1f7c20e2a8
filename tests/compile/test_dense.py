"""Dense layers against onnxruntime, packing, and the choice of schedules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nets import Net, call_kernel, check

from tenantdl.compile.build import build_library
from tenantdl.compile.kernels.dense import (
    candidates,
    pack_panels,
    predicted_cycles,
    ranked_schedules,
)
from tenantdl.compile.kernels.dense_gemm import DenseSchedule, DenseSpec, dense
from tenantdl.compile.kernels.runs import even_runs
from tenantdl.compile.target import parse_target

# leading dimensions, K, N
CASES = [
    ((1,), 64, 100),  # one row, partial vector
    ((3,), 33, 16),  # odd reduction
    ((2, 17), 48, 50),  # leading dimensions flattened, two tile heights
    ((128,), 96, 384),
    ((40,), 700, 64),
    ((5,), 1, 7),
    ((9,), 20, 1),
    ((1, 300), 64, 72),
]


@pytest.mark.parametrize("target", ["native", "x86_64:haswell"])
def test_products_with_tails(tmp_path: Path, target: str) -> None:
    net = Net()
    for lead, inner, columns in CASES:
        x = net.input(*lead, inner)
        net.output(net.op("MatMul", x, net.weight(inner, columns)))
        y = net.op("MatMul", x, net.weight(inner, columns))
        y = net.op("Add", net.weight(columns), y)
        y = net.op("Mul", net.op("Add", y, net.input(*lead, columns)), net.const(0.05))
        net.output(net.op("Tanh", y))
    summary = check(net, tmp_path, target=target)
    assert summary.kinds == {"dense": 2 * len(CASES)}


def test_equal_layers_share_a_kernel(tmp_path: Path) -> None:
    net = Net()
    x = net.input(32, 64)
    for _ in range(4):
        x = net.op("Relu", net.op("MatMul", x, net.weight(64, 64)))
    net.output(x)
    summary = check(net, tmp_path)
    assert (summary.operators, summary.kernels) == (4, 1)


@pytest.mark.parametrize("group", [1, 2, 3])
def test_chunked_reduction_over_row_blocks(group: int, tmp_path: Path) -> None:
    """Partial sums, uneven last chunk, ragged rows: forced by a small cache."""
    target = parse_target("native")
    spec = DenseSpec(rows=53, inner=203, columns=90, lanes=target.lanes)
    schedule = DenseSchedule(rows=6, vectors=2, chunk=64, row_block=20, group=group)
    kernel = dense(spec, schedule)
    build_library([kernel], target, tmp_path / "dense.so")
    rng = np.random.default_rng(1)
    x = rng.standard_normal((53, 203), dtype=np.float32)
    weights = rng.standard_normal((203, 90), dtype=np.float32)
    out = np.full((53, 90), np.nan, np.float32)
    packed = pack_panels(weights, spec, schedule)
    call_kernel(tmp_path / "dense.so", kernel.key, x, packed, out)
    np.testing.assert_allclose(out, x @ weights, rtol=1e-4, atol=1e-4)


def test_rows_beyond_l2_are_fetched_once_for_several_panels() -> None:
    target = parse_target("x86_64:sapphirerapids")
    l2 = target.caches.l2_bytes
    spec = DenseSpec(128, l2 // 4 // 128, 1024, target.lanes)
    best = ranked_schedules(spec, target, 2)[0]
    assert best.group > 1
    sums = 4 * target.lanes * best.vectors * best.group * best.row_block
    assert sums <= l2 // 4
    assert ranked_schedules(DenseSpec(128, 64, 1024, target.lanes), target, 2)[0].group == 1


def test_packed_panels_are_read_in_order() -> None:
    spec = DenseSpec(rows=1, inner=3, columns=70, lanes=16)
    weights = np.arange(3 * 70, dtype=np.float32).reshape(3, 70)
    packed = pack_panels(weights, spec, DenseSchedule(1, 2, 16, 1))
    assert packed.shape == (15, 16)
    wide = packed[: 2 * 3 * 2].reshape(2, 3, 2, 16)  # [panel][K][vectors][lanes]
    np.testing.assert_array_equal(wide[1, 2].ravel(), weights[2, 32:64])
    np.testing.assert_array_equal(packed[12:, :6], weights[:, 64:])
    assert not packed[12:, 6:].any()


@pytest.mark.parametrize("rows", [1, 4, 16, 128, 1000])
@pytest.mark.parametrize("text", ["x86_64:sapphirerapids", "x86_64:haswell", "aarch64"])
def test_tiles_fit_the_registers(rows: int, text: str) -> None:
    target = parse_target(text)
    spec = DenseSpec(rows, 1024, 1000, target.lanes)
    for schedule in candidates(spec, target):
        tile = even_runs(rows, schedule.rows)[0].size
        assert tile * schedule.vectors + schedule.vectors + 1 <= target.registers
        assert schedule.chunk % schedule.unroll == 0
        assert 1 <= schedule.row_block <= rows
    best = ranked_schedules(spec, target, 2)[0]
    assert predicted_cycles(spec, best, target, 2) <= predicted_cycles(spec, best, target, 1)


@pytest.mark.parametrize("cores", [2, 4])
def test_narrow_outputs_are_split_by_rows(cores: int) -> None:
    target = parse_target("x86_64:sapphirerapids")
    schedule = ranked_schedules(DenseSpec(256, 1024, 2, target.lanes), target, cores)[0]
    assert -(-256 // schedule.row_block) % cores == 0
