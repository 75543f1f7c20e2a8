"""Control flow, resolved while reading: a branch is taken, or both; a loop is unrolled."""

from __future__ import annotations

import numpy as np

from tenantdl.compile.frontend.refusal import STEPS_MAX, Refusal
from tenantdl.compile.frontend.scope import Call, Handler, Reader, Scope
from tenantdl.errors import UserError


def _if(reader: Reader, call: Call) -> list[str]:
    b = reader.builder
    label = b.label
    condition = call.inputs[0]
    if int(np.prod(b.shape(condition))) != 1:
        raise Refusal("its condition must be one element")
    known = b.const(condition)
    if known is not None:
        branch = "then_branch" if known.any() else "else_branch"
        return _outputs(call, reader.body(call.attrs[branch], call.scope.inside(label)))
    # Operators are pure: both branches can be computed, and one chosen afterwards.
    try:
        yes = reader.body(call.attrs["then_branch"], call.scope.inside(f"{label}/then"))
        no = reader.body(call.attrs["else_branch"], call.scope.inside(f"{label}/else"))
    except UserError as error:
        raise Refusal(
            f"its condition is not constant, so both branches must fit these shapes: {error.what}"
        ) from error
    b.label = label
    scalar = b.op("Reshape", condition, b.constant([], "int64"))
    results = []
    for left, right in zip(_outputs(call, yes), _outputs(call, no), strict=True):
        if b.types[left] != b.types[right]:
            raise Refusal("its condition is not constant and its branches differ in shape or type")
        results.append(left if left == right else b.op("Where", scalar, left, right))
    return results


def _outputs(call: Call, values: list[str]) -> list[str]:
    if len(values) < len(call.outputs):
        raise Refusal(f"a branch gives {len(values)} values for {len(call.outputs)} outputs")
    return values[: len(call.outputs)]


def _loop(reader: Reader, call: Call) -> list[str]:
    b = reader.builder
    label = b.label
    body = call.attrs["body"]
    carried = list(call.inputs[2:])
    if len(body.input) != 2 + len(carried) or len(body.output) < 1 + len(carried):
        raise Refusal("its body does not fit its inputs")
    steps = _trip_count(reader, call)
    condition = call.input(1)
    collected: list[list[str]] = [[] for _ in body.output[1 + len(carried) :]]
    step = 0
    while _goes_on(reader, condition) and (steps is None or step < steps):
        if step >= STEPS_MAX:
            raise Refusal(f"takes more than {STEPS_MAX} steps")
        scope = call.scope.inside(f"{label}/{step}")
        going = condition or b.constant(True)
        _bind(scope, body, [b.constant(step, "int64"), going, *carried])
        results = reader.body(body, scope)
        b.label = label
        condition, carried = results[0], results[1 : 1 + len(carried)]
        for values, value in zip(collected, results[1 + len(carried) :], strict=True):
            values.append(value)
        step += 1
    return _outputs(call, carried + [_stack(reader, values, 0, False) for values in collected])


def _trip_count(reader: Reader, call: Call) -> int | None:
    if not call.input(0):
        return None
    count = reader.builder.const(call.inputs[0])
    if count is None:
        raise Refusal("its trip count is not constant")
    return int(count.reshape(-1)[0])


def _goes_on(reader: Reader, condition: str) -> bool:
    if not condition:
        return True
    known = reader.builder.const(condition)
    if known is None:
        raise Refusal("when it ends depends on data")
    return bool(known.any())


def _bind(scope: Scope, body: object, values: list[str]) -> None:
    for proto, value in zip(body.input, values, strict=True):  # type: ignore[attr-defined]
        scope.bind(proto.name, value)


def _stack(reader: Reader, values: list[str], axis: int, reverse: bool) -> str:
    """One tensor of the values of all steps, along a new axis."""
    b = reader.builder
    if not values:
        raise Refusal("takes no step, so that the shape of what it collects is unknown")
    where = b.constant([axis], "int64")
    columns = [b.op("Unsqueeze", value, where) for value in values]
    return b.op("Concat", *(reversed(columns) if reverse else columns), axis=axis)


def _scan(reader: Reader, call: Call) -> list[str]:
    if call.version < 9:
        raise Refusal("the form of opset 8 is not supported")
    b = reader.builder
    label = b.label
    body = call.attrs["body"]
    n_scanned = int(call.attrs["num_scan_inputs"])
    n_states = len(call.inputs) - n_scanned
    if n_states < 0 or len(body.input) != len(call.inputs) or len(body.output) < n_states:
        raise Refusal("its body does not fit its inputs")
    n_collected = len(body.output) - n_states
    states, scanned = call.inputs[:n_states], call.inputs[n_states:]
    axes = call.attrs.get("scan_input_axes", [0] * n_scanned)
    backwards = call.attrs.get("scan_input_directions", [0] * n_scanned)
    lengths = {b.shape(name)[axis] for name, axis in zip(scanned, axes, strict=True)}
    if len(lengths) != 1 or max(lengths) > STEPS_MAX:
        raise Refusal(
            f"its sequences must have one length up to {STEPS_MAX}, not {sorted(lengths)}"
        )
    length = lengths.pop()
    collected: list[list[str]] = [[] for _ in range(n_collected)]
    for step in range(length):
        slices = [
            b.op(
                "Gather", name, b.constant(length - 1 - step if back else step, "int64"), axis=axis
            )
            for name, axis, back in zip(scanned, axes, backwards, strict=True)
        ]
        scope = call.scope.inside(f"{label}/{step}")
        _bind(scope, body, [*states, *slices])
        results = reader.body(body, scope)
        b.label = label
        states = results[:n_states]
        for values, value in zip(collected, results[n_states:], strict=True):
            values.append(value)
    out_axes = call.attrs.get("scan_output_axes", [0] * n_collected)
    reversed_ = call.attrs.get("scan_output_directions", [0] * n_collected)
    stacked = [
        _stack(reader, values, axis, bool(back))
        for values, axis, back in zip(collected, out_axes, reversed_, strict=True)
    ]
    return _outputs(call, [*states, *stacked])


HANDLERS: dict[str, Handler] = {"If": _if, "Loop": _loop, "Scan": _scan}
