"""Cutting rows into vectors, and turning squares of vectors in registers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nets import call_kernel

from tenantdl.compile.build import build_library
from tenantdl.compile.kernels.emit import Emitter
from tenantdl.compile.kernels.runs import pieces
from tenantdl.compile.kernels.tiles import transposed
from tenantdl.compile.target import parse_target


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("count", [0, 1, 3, 15, 16, 37])
def test_pieces_cover_every_element_once(count: int, lanes: int) -> None:
    cut = pieces(count, lanes)
    covered = [i for start, length in cut for i in range(start, start + length)]
    assert covered == list(range(count))
    assert all(length in (1, 2, 4, 8, 16) and length <= lanes for _, length in cut)


@pytest.mark.parametrize("text", ["native", "x86_64:haswell", "x86_64:x86-64"])
def test_squares_are_turned(tmp_path: Path, text: str) -> None:
    target = parse_target(text)
    lanes = target.lanes
    with Emitter("turn", lanes) as e:
        x, out = e.param("x", (lanes, lanes)), e.param("out", (lanes, lanes))
        rows = [e.bind(e.load(x, (i, 0))) for i in range(lanes)]
        for i, row in enumerate(transposed(e, rows)):
            e.store(out, (i, 0), row)
    build_library([e.kernel()], target, tmp_path / "turn.so")
    square = np.arange(lanes * lanes, dtype=np.float32).reshape(lanes, lanes)
    result = np.zeros_like(square)
    call_kernel(tmp_path / "turn.so", "turn", square, result)
    np.testing.assert_array_equal(result, square.T)
