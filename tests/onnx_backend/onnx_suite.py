"""ONNX's own test cases, one by one: each passes, is refused with a reason, or fails.

Shapes are static here, so an input that decides a shape (the `shape` of Reshape) must be known when
compiling: a case that is refused for that is compiled again with its small inputs other than the
first as constants, as exporters write them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests
from onnx_runner import Prepared, prepare

from tenantdl.compile.graph import Array
from tenantdl.errors import UserError

KINDS = ("node", "simple", "pytorch-operator", "pytorch-converted")
Status = Literal["passed", "refused", "failed"]
DataSet = tuple[list[Any], list[Any]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a case. `bound`: it ran with small inputs as constants. `ways`: "template",
    "generic", "expanded", "folded", as far as each was used."""

    name: str
    op: str
    status: Status
    detail: str = ""
    bound: bool = False
    ways: tuple[str, ...] = ()


def load_cases(kind: str) -> list[TestCase]:
    """ONNX's cases of a kind, by name."""
    return sorted(load_model_tests(kind=kind), key=lambda case: str(case.name))


def run_case(case: TestCase, *, templates: bool = True) -> Outcome:
    """Compiles the case's model and compares its outputs."""
    model, data = load_case(case)
    op = subject(case, model)
    attempts = [(model, data), bound_model(model, data)]
    reason = ""
    for number, attempt in enumerate(attempts):
        if attempt is None or (reason and not _needs_constants(reason)):
            continue
        try:
            prepared = prepare(attempt[0], templates=templates)
        except UserError as refusal:
            reason = str(refusal)
            continue
        detail = _run(case, prepared, attempt[1])
        status: Status = "failed" if detail else "passed"
        return Outcome(case.name, op, status, detail, number == 1, _ways(op, prepared))
    return Outcome(case.name, op, "refused", reason)


def _ways(op: str, prepared: Prepared) -> tuple[str, ...]:
    """How the case's operator was covered."""
    templates = prepared.kinds - {"generic", "layout"}
    ways = {"generic"} & prepared.kinds | ({"template"} if templates else set())
    if op not in prepared.operators:
        ways = {"expanded"} if ways else {"folded"}
    return tuple(sorted(ways))


def _needs_constants(reason: str) -> bool:
    return "depends on data" in reason or "constant" in reason


def _run(case: TestCase, prepared: Prepared, data: Sequence[DataSet]) -> str:
    """ "" if all outputs are right, else what is wrong."""
    for inputs, expected in data:
        found = prepared.run([np.asarray(item) for item in inputs])
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            difference = compare(one, np.asarray(other), case)
            if difference:
                return f"output {index}: {difference}"
    return ""


def compare(found: Array, expected: Array, case: TestCase) -> str:
    """What differs, or "": within the case's tolerance, at least 1e-5 (1e-3 for float16)."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return f"{found.dtype}{list(found.shape)}, not {expected.dtype}{list(expected.shape)}"
    if expected.dtype.kind in "biu":
        exact = np.array_equal(found, expected)
        return "" if exact else f"{np.count_nonzero(found != expected)} elements differ"
    near = np.isclose(
        found.astype(np.float64),
        expected.astype(np.float64),
        rtol=case.rtol,
        atol=max(case.atol, 1e-5 if expected.dtype != np.float16 else 1e-3),
        equal_nan=True,
    )
    return "" if near.all() else f"{np.count_nonzero(~near)} of {near.size} elements are off"


def subject(case: TestCase, model: onnx.ModelProto) -> str:
    """The operator that a case is about: the one that its name holds, else its first."""
    ops = [node.op_type for node in model.graph.node]
    name = str(case.name).replace("_", "").lower()
    named = [op for op in ops if op.lower() in name and op != "Constant"]
    return max(named, key=len) if named else ops[0]


def bound_model(
    model: onnx.ModelProto, data: Sequence[DataSet]
) -> tuple[Any, list[DataSet]] | None:
    """The model with its small inputs as constants, except its main one: the first of floats."""
    if len(data) != 1:
        return None
    inputs, expected = data[0]
    floats = [isinstance(v, np.ndarray) and v.dtype.kind == "f" and v.size > 1 for v in inputs]
    main = floats.index(True) if True in floats else 0
    bound = onnx.ModelProto()
    bound.CopyFrom(model)
    kept: list[Any] = []
    for index, (proto, value) in enumerate(zip(list(model.graph.input), inputs, strict=False)):
        small = isinstance(value, np.ndarray | np.generic) and np.asarray(value).size <= 64
        if small and index != main:
            bound.graph.initializer.append(numpy_helper.from_array(np.asarray(value), proto.name))
            bound.graph.input.remove(proto)
        else:
            kept.append(value)
    return (bound, [(kept, expected)]) if len(kept) < len(inputs) else None


def load_case(case: TestCase) -> tuple[onnx.ModelProto, Sequence[DataSet]]:
    """The model of a case and its sets of inputs and outputs."""
    if case.model is not None:
        return case.model, [(_arrays(i), _arrays(o)) for i, o in case.data_sets or []]
    folder = Path(str(case.model_dir))
    model = onnx.load(folder / "model.onnx")
    sets = [d for d in sorted(folder.iterdir()) if d.name.startswith("test_data_set")]
    return model, [(_read(d, "input"), _read(d, "output")) for d in sets]


def _arrays(values: Sequence[Any]) -> list[Any]:
    """Some cases hold protobufs instead of arrays."""
    return [
        numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value
        for value in values
    ]


def _read(folder: Path, kind: str) -> list[Any]:
    count = sum(name.startswith(f"{kind}_") for name in os.listdir(folder))
    protos = [
        onnx.TensorProto.FromString((folder / f"{kind}_{i}.pb").read_bytes()) for i in range(count)
    ]
    return [numpy_helper.to_array(proto) for proto in protos]
