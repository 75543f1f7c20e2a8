"""ONNX's own cases: a few of every operator quickly, all of them marked slow."""

from __future__ import annotations

from collections import Counter

import pytest

from .onnx_report import document, run_all
from .onnx_suite import KINDS, Outcome, load_case, load_cases, run_case, subject

# Long to compile and tested elsewhere; nothing of the kind runs; or the same again, expanded.
_LEFT_OUT = ("GRU", "LSTM", "RNN", "ImageDecoder", "StringNormalizer", "TfIdfVectorizer")
PASSED_MIN = 1600


def test_one_case_of_every_operator() -> None:
    chosen = {}
    for case in load_cases("node"):
        op = subject(case, load_case(case)[0])
        if op not in _LEFT_OUT and "expanded" not in case.name:
            chosen.setdefault(op, case)
    outcomes = [run_case(case) for case in chosen.values()]
    assert [o for o in outcomes if o.status == "failed"] == []
    assert Counter(o.status for o in outcomes)["passed"] >= 140


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_all_cases() -> None:
    outcomes = list(run_all(KINDS, run_case))
    assert [o for o in outcomes if o.status == "failed"] == []
    assert Counter(o.status for o in outcomes)["passed"] >= PASSED_MIN


def test_the_document_counts_by_operator() -> None:
    outcomes = [
        Outcome("a", "Add", "passed", ways=("template",)),
        Outcome("b", "Add", "passed", bound=True, ways=("generic",)),
        Outcome("c", "Det", "refused", "m: node 'Det_0' (Det): the operator is not supported"),
    ]
    text = document(outcomes, ["node"])
    assert "**2 passed, 1 refused, 0 failed.**" in text
    assert "| Add | generic, template | 2 | 0 | 0 |  |" in text
    assert "| Det |  | 0 | 1 | 0 | the operator is not supported |" in text
