"""Which of ONNX's own cases TVM's importer can read, and what becomes of those here.

    python tests/onnx_backend/onnx_importer.py

Importing is all that is asked of TVM: whether the module would also compile, and compute the right
thing, is not tried.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections import Counter
from pathlib import Path

from tvm.relax.frontend.onnx import from_onnx

from tenantdl.compile.frontend import load_graph
from tenantdl.compile.lower import lower
from tenantdl.compile.rewrite import rewrite
from tenantdl.compile.target import native_target
from tenantdl.errors import UserError

sys.path.insert(0, str(Path(__file__).parent))
from onnx_suite import KINDS, bound_model, load_case, load_cases


def importable(model: object) -> bool:
    """Whether TVM's importer takes the model."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            from_onnx(model)
        except Exception:  # whatever an importer raises, it has not imported
            return False
    return True


def refusal(model: object) -> str:
    """ "" if the model is lowered here, else why it is refused."""
    try:
        lower(rewrite(load_graph(model)), native_target(), 1)
    except UserError as error:
        return str(error)
    return ""


def main() -> None:
    """Count, and name what TVM imports and we refuse."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    for kind in KINDS:
        for case in load_cases(kind):
            model, data = load_case(case)
            models = [model, *([bound[0]] if (bound := bound_model(model, data)) else [])]
            theirs = any(importable(candidate) for candidate in models)
            reasons = [refusal(candidate) for candidate in models] if theirs else []
            ours = "" in reasons
            counts["cases"] += 1
            counts["imported by TVM"] += theirs
            counts["imported by TVM, lowered here"] += theirs and ours
            if theirs and not ours:
                print(f"{case.name}: {reasons[0]}")
    for name, count in counts.items():
        print(f"{name}: {count}")


if __name__ == "__main__":
    main()
