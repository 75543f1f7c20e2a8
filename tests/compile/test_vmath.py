"""Vector functions against float64: the errors that the module's docstring states."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from nets import call_kernel
from numpy.typing import NDArray

from tenantdl.compile.build import build_library
from tenantdl.compile.kernels.emit import Emitter
from tenantdl.compile.kernels.vmath import UNARY, VectorMath
from tenantdl.compile.operator import Kernel
from tenantdl.compile.target import CpuTarget, parse_target

Array = NDArray[Any]
COUNT = 4096

_erf: Callable[[Array], Array] = np.vectorize(math.erf)


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


# name → range of arguments, exact function, bound on the error, relative to max(|exact|, floor)
CASES: dict[str, tuple[float, Callable[[Array], Array], float, float]] = {
    "Exp": (80.0, np.exp, 3e-7, 0.0),
    "Tanh": (12.0, np.tanh, 5e-7, 0.0),
    "Sigmoid": (30.0, _sigmoid, 6e-7, 1e-7),
    "Erf": (5.0, _erf, 5e-7, 1.0),
    "Gelu": (8.0, lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))), 2e-6, 1.0),
    "Silu": (30.0, lambda x: x * _sigmoid(x), 1e-6, 1e-6),
    "HardSwish": (8.0, lambda x: x * np.clip(x / 6 + 0.5, 0, 1), 3e-7, 1.0),
}


def _kernel(name: str, target: CpuTarget) -> Kernel:
    with Emitter(f"unary_{name}", target.lanes) as e:
        x, out = e.param("x", (COUNT,)), e.param("out", (COUNT,))
        with e.serial(COUNT // target.lanes) as block:
            at = (block * target.lanes,)
            e.store(out, at, UNARY[name](VectorMath(e), e.bind(e.load(x, at)), {}))
    return e.kernel()


@pytest.mark.parametrize("text", ["native", "x86_64:haswell", "x86_64:x86-64"])
def test_errors_against_float64(tmp_path: Path, text: str) -> None:
    target = parse_target(text)
    kernels = {name: _kernel(name, target) for name in CASES}
    build_library(kernels.values(), target, tmp_path / "unary.so")
    for name, (reach, exact, bound, floor) in CASES.items():
        x = np.linspace(-reach, reach, COUNT).astype(np.float32)
        out = np.zeros(COUNT, np.float32)
        call_kernel(tmp_path / "unary.so", kernels[name].key, x, out)
        expected = exact(x.astype(np.float64))
        scale = np.maximum(np.abs(expected), floor)
        error = np.max(np.abs(out - expected) / np.where(scale, scale, 1.0))
        assert error <= bound, f"{name}: {error:.1e}"


def test_exp_saturates(tmp_path: Path) -> None:
    target = parse_target("native")
    kernel = _kernel("Exp", target)
    build_library([kernel], target, tmp_path / "exp.so")
    x = np.zeros(COUNT, np.float32)
    x[:4] = (-np.inf, -3.4e38, 3.4e38, 1e4)
    out = np.zeros_like(x)
    call_kernel(tmp_path / "exp.so", kernel.key, x, out)
    low, lower, high, higher = out[:4]
    assert 0 <= low < 1e-37 and 0 <= lower < 1e-37
    assert np.isfinite([high, higher]).all() and min(high, higher) > 1e38


def test_neon_code_is_generated() -> None:
    target = parse_target("aarch64")
    kernels = {f"unary_{name}": _kernel(name, target).func for name in CASES}
    module = tvm.compile(tvm.IRModule(kernels), target=target.tvm)
    assembly = module.mod.inspect_source("asm")
    assert "fmla" in assembly and "expf" not in assembly
