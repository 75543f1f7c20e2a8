"""Convolutions whose reduction is cut into chunks: equal to onnxruntime's, whatever the image."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenantdl.compile.kernels import conv_choice
from tenantdl.compile.kernels.conv_schedule import choose, ranked_schedules
from tenantdl.compile.kernels.conv_spec import ConvSchedule, ConvSpec, is_plane
from tenantdl.compile.kernels.layout import Packed
from tenantdl.compile.target import CpuTarget, parse_target
from tests.nets import Net, check


def _heavy(channels: int, side: int, outputs: int) -> ConvSpec:
    data = Packed(1, channels, side, side, 16)
    return ConvSpec(data, Packed(1, outputs, side, side, 16), (1, 1))


def test_many_weights_over_few_pixels_go_chunk_by_chunk() -> None:
    target = parse_target("x86_64:sapphirerapids")
    assert choose(_heavy(2048, 7, 512), target, 1).chunk
    assert not choose(_heavy(64, 56, 64), target, 1).chunk
    for side in (7, 14, 28):
        found = ranked_schedules(_heavy(512, side, 1024), target, 2)
        assert all(s.blocks <= 6 for s in found if s.chunk)  # slower with more streams


@pytest.mark.parametrize(("blocks", "parts"), [(1, 1), (2, 2), (3, 1), (4, 2)])
def test_chunks_agree_with_onnxruntime(
    blocks: int, parts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picked: list[ConvSchedule] = []

    def chunked(spec: ConvSpec, target: CpuTarget, cores: int) -> list[ConvSchedule]:
        found = ranked_schedules(spec, target, cores)
        chunks = [s for s in found if s.chunk and s.blocks == blocks]
        simple = spec.simplified()
        height = 1 if is_plane(simple) else simple.rows
        split = [s for s in chunks if s.fold > 1 or s.row_block < height]
        whole = [s for s in chunks if s not in split]
        best = (split if parts > 1 else whole) or chunks or found
        picked.append(best[0])
        return best

    monkeypatch.setattr(conv_choice, "ranked_schedules", chunked)
    monkeypatch.setattr(conv_choice, "algorithms", lambda *_: [None])
    net = Net()
    rows = net.input(1, 512, 14, 14)  # rows of tiles, a residual in the epilogue, a border written
    y = net.op("Conv", rows, net.weight(80, 512, 1, 1), net.weight(80))
    z = net.op("Conv", net.op("Relu", y), net.weight(80, 80, 3, 3), pads=[1] * 4)
    net.output(net.op("Relu", net.op("Add", z, y)))
    plane = net.input(2, 512, 7, 7)  # tiles across rows, a long epilogue, two images
    wide = net.op("Conv", plane, net.weight(96, 512, 3, 3), net.weight(96), pads=[1] * 4)
    net.output(net.op("Tanh", wide))
    small = net.op("Relu", net.op("Conv", plane, net.weight(48, 512, 1, 1)))  # into a border
    net.output(net.op("Conv", small, net.weight(16, 48, 3, 3), pads=[1] * 4))
    strided = net.input(1, 256, 13, 9)
    weights = net.weight(64, 256, 3, 3)
    net.output(net.op("Conv", strided, weights, pads=[1] * 4, strides=[2, 2]))
    check(net, tmp_path, tolerance=1e-5)  # sums of up to 4608 products
    assert sum(schedule.chunk > 0 for schedule in picked) >= 4
    folds = [schedule.fold for schedule in picked if schedule.chunk]
    assert max(folds) == parts
