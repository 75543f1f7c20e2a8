"""Runs all of ONNX's test cases and writes docs/operators.md; a script, started without arguments.

Every case runs in a child process, which is replaced if it dies: a crash is a failure of one case.
With `--compare`, TVM's own importer and default pipeline run the same cases.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import onnx
from onnx.backend.test.case.test_case import TestCase
from onnx_suite import KINDS, Outcome, compare, load_case, load_cases, run_case, subject

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "operators.md"
_CASE_SECONDS_MAX = 120
_TENSORS = "tensors of "

Runner = Callable[[TestCase], Outcome]


def run_with_tvm(case: TestCase) -> Outcome:
    """The case by TVM's importer and its default pipeline."""
    import tvm
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx

    model, data = load_case(case)
    op = subject(case, model)
    try:
        module = relax.transform.DecomposeOpsForInference()(from_onnx(model))
        with tvm.transform.PassContext(opt_level=3):
            machine = relax.VirtualMachine(tvm.compile(module, "llvm"), tvm.cpu())
        for inputs, expected in data:
            machine.set_input("main", *[tvm.runtime.tensor(np.asarray(i)) for i in inputs])
            machine.invoke_stateful("main")
            made = machine.get_outputs("main")
            found = [made] if isinstance(made, tvm.runtime.Tensor) else list(made)
            for one, other in zip(found, expected, strict=False):
                difference = compare(one.numpy(), np.asarray(other), case)
                if difference:
                    return Outcome(case.name, op, "failed", difference)
    except Exception as error:  # whatever TVM raises, it does not run the case
        return Outcome(case.name, op, "refused", str(error)[-200:])
    return Outcome(case.name, op, "passed")


def run_all(kinds: Sequence[str], runner: Runner) -> Iterator[Outcome]:
    """Outcomes of all cases of the kinds, in order."""
    for kind in kinds:
        names = [str(case.name) for case in load_cases(kind)]
        while names:
            here, there = multiprocessing.Pipe(duplex=False)
            child = multiprocessing.Process(target=_child, args=(kind, set(names), runner, there))
            child.start()
            there.close()
            yield from _received(here, child, names)
            child.kill()
            child.join()


def _received(
    here: Connection, child: multiprocessing.Process, names: list[str]
) -> Iterator[Outcome]:
    """What a child sends; when it dies or hangs, its case has failed. Shortens `names`."""
    current = ""
    patience = _CASE_SECONDS_MAX
    while names:
        try:
            message = here.recv() if here.poll(patience) else None
        except EOFError:
            message = None
        if message is None:
            failed = current or names[0]
            names.remove(failed)
            yield Outcome(failed, "?", "failed", f"the process died ({child.exitcode}) or hung")
            return
        if isinstance(message, str):
            current = message
        else:
            names.remove(current)
            current = ""
            yield message


def _child(kind: str, names: set[str], runner: Runner, there: Connection) -> None:
    warnings.simplefilter("ignore")
    for case in load_cases(kind):
        if case.name not in names:
            continue
        there.send(case.name)
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                outcome = runner(case)
            except Exception as error:  # no exception but UserError may come out of the compiler
                what = f"{type(error).__name__}: {error}"[:300]
                op = subject(case, load_case(case)[0])
                outcome = Outcome(case.name, op, "failed", what)
        there.send(outcome)


def document(outcomes: Sequence[Outcome], kinds: Sequence[str]) -> str:
    """docs/operators.md."""
    counts = Counter(outcome.status for outcome in outcomes)
    bound = sum(outcome.bound for outcome in outcomes)
    lines = [
        "# Operators",
        "",
        f"ONNX {onnx.__version__}, its own test cases ({', '.join(kinds)}) through the compiler:",
        f"**{counts['passed']} passed, {counts['refused']} refused, {counts['failed']} failed.**",
        "A refusal is one line that names the node; a wrong result never counts as anything else",
        f"than a failure. Shapes are static: {bound} of the cases that passed have small inputs",
        "(shapes, axes, thresholds) as constants, as exporters write them.",
        "",
        "How: `template` = a kernel of our own; `generic` = the generic lowering; `expanded` = in",
        "other operators, as ONNX defines it; `folded` = known when compiling. An operator may be",
        "covered in several ways. Not supported, whatever the operator: strings, sequences,",
        "optional values, bfloat16, floats of 8 bits and less, integers below 8 bits, random",
        "operators, and shapes that depend on data.",
        "",
        "TVM's own importer reads 1312 of the 2024 cases; 1106 of those are lowered here,",
        "the others hold sequences, optional values or shapes that depend on data. Counted by",
        "`python tests/onnx_backend/onnx_importer.py`.",
        "",
        "Made by `python tests/onnx_backend/onnx_report.py`; do not edit.",
        "",
        "| operator | how | passed | refused | failed | why refused |",
        "|---|---|---:|---:|---:|---|",
    ]
    by_op: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_op[outcome.op].append(outcome)
    return "\n".join([*lines, *(_row(op, by_op[op]) for op in sorted(by_op))]) + "\n"


def _row(op: str, outcomes: Sequence[Outcome]) -> str:
    counts = Counter(outcome.status for outcome in outcomes)
    how = sorted({way for outcome in outcomes for way in outcome.ways})
    reasons = Counter(_reason(o.detail) for o in outcomes if o.status == "refused")
    why = "; ".join(reason for reason, _ in reasons.most_common(3))
    cells = (op, ", ".join(how), *(str(counts[s]) for s in ("passed", "refused", "failed")), why)
    return "| " + " | ".join(cells) + " |"


def _reason(detail: str) -> str:
    """An error line without the names of model and node."""
    if _TENSORS in detail:
        return detail[detail.index(_TENSORS) :]
    reason = detail.rpartition("): ")[2] or detail
    return reason.replace("|", "/")[:120]


def main() -> None:
    """Runs everything, prints a summary, writes the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compare", action="store_true", help="run TVM's own importer instead")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    options = parser.parse_args()
    os.environ.setdefault("TVM_NUM_THREADS", "1")
    outcomes = []
    for outcome in run_all(options.kinds, run_with_tvm if options.compare else run_case):
        outcomes.append(outcome)
        if outcome.status == "failed" and not options.compare:
            print(f"FAILED {outcome.name}: {outcome.detail}", flush=True)
    print(dict(Counter(outcome.status for outcome in outcomes)))
    if not options.compare:
        DOCUMENT.parent.mkdir(exist_ok=True)
        beside = DOCUMENT.with_suffix(".tmp")
        beside.write_text(document(outcomes, options.kinds))
        beside.replace(DOCUMENT)


if __name__ == "__main__":
    main()
