"""Arithmetic where ONNX and TVM differ in dtypes or signs, or where the processor would trap."""

from __future__ import annotations

from typing import Any

from tvm import relax, tirx

from tenantdl.compile.generic.rules.use import Rule, Use, dtype_of, elementwise, immediate


def _broadcast(use: Use) -> list[Any]:
    """The two operands in the shape of the output."""
    return [use.emit(relax.op.broadcast_to(v, use.out.shape)) for v in use.inputs[:2]]


def _divided(x: Any, y: Any, how: Any) -> Any:
    """`how(x, y)` of integers. Division by zero and of the least number by -1 would trap and take
    the process with them: by zero gives `how(x, 1)`, by -1 the wrapped result."""
    zero, one = immediate(0, dtype_of(x)), immediate(1, dtype_of(x))
    if dtype_of(x).startswith("u"):
        return how(x, tirx.Select(y == zero, one, y))
    minus = y == immediate(-1, dtype_of(x))
    safe = tirx.Select(tirx.any(y == zero, minus), one, y)
    return tirx.Select(minus, how(zero - x, one), how(x, safe))


def _div(use: Use) -> Any:
    if use.dtype().startswith("float"):
        return relax.op.divide(*use.inputs)
    return use.te(elementwise(lambda x, y: _divided(x, y, tirx.truncdiv)), *_broadcast(use))


def _mod(use: Use) -> Any:
    truncated = bool(use.attrs.get("fmod", 0))
    if not use.dtype().startswith("float"):
        how = tirx.truncmod if truncated else tirx.floormod
        return use.te(elementwise(lambda x, y: _divided(x, y, how)), *_broadcast(use))

    def remainder(x: Any, y: Any) -> Any:
        name = "fmodf" if dtype_of(x) == "float32" else "fmod"  # no intrinsic of LLVM
        rest = tirx.call_pure_extern(dtype_of(x), name, x, y)
        if truncated:
            return rest
        zero = immediate(0.0, dtype_of(x))
        opposite = tirx.any(tirx.all(rest < zero, y > zero), tirx.all(rest > zero, y < zero))
        return tirx.Select(opposite, rest + y, rest)

    return use.te(elementwise(remainder), *_broadcast(use))


def _pow(use: Use) -> Any:
    """The result has the dtype of the base; the exponent may have another. Integers go through
    float64, which holds them up to 2**53."""
    base, exponent = use.inputs
    if use.dtype() == use.dtype(1) and use.dtype().startswith("float"):
        constant = use.array(1)
        whole = constant is not None and constant.size == 1 and float(constant.reshape(()))
        if whole in (1.0, 2.0, 3.0, 4.0):
            value = base
            for _ in range(int(whole) - 1):
                value = use.emit(relax.op.multiply(value, base))
            return relax.op.broadcast_to(value, use.out.shape)
        return relax.op.power(base, exponent)
    work = "float64" if "64" in use.dtype() + use.dtype(1) or "int" in use.dtype() else "float32"
    left, right = (use.emit(relax.op.astype(value, work)) for value in (base, exponent))
    return relax.op.astype(use.emit(relax.op.power(left, right)), use.out.dtype)


RULES: dict[str, Rule] = {"Div": _div, "Mod": _mod, "Pow": _pow}
