"""Verdicts: what a run had to show, and whether it did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenantdl.errors import InvariantError
from tenantdl.ids import RequestId
from tenantdl.load.issuer import BROKEN, DROPPED, OK, Outcome
from tenantdl.sched.journal import read, replay
from tenantdl.sched.messages import Complete, Reject, RequestArrived

# Refusals that say why: too many, or not in time. Anything else is a fault of ours.
_EXPLAINED = (429, 503)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to show: what it is, whether it was so, and the figure that says so."""

    name: str
    passed: bool
    figure: str

    def row(self, experiment: str, workload: str) -> dict[str, Any]:
        """Plain data for a result file."""
        return {
            "experiment": experiment,
            "label": "measured",
            "workload": workload,
            "check": self.name,
            "passed": self.passed,
            "figure": self.figure,
        }


def one_answer_each(outcome: Outcome, journal: Path) -> list[Check]:
    """Nobody was left without an answer, got two, or a wrong one; on both sides of the wire."""
    statuses = Counter(sample.status for sample in outcome.samples)
    broken, dropped = statuses.pop(BROKEN, 0), statuses.pop(DROPPED, 0)
    odd = {status: n for status, n in statuses.items() if status not in (OK, *_EXPLAINED)}
    refused = sum(statuses[status] for status in _EXPLAINED)
    asked = len(outcome.samples)
    open_, doubled, answers = _answers(journal)
    return [
        Check(
            "every request got an answer",
            broken == 0 and dropped == 0 and asked > 0,
            f"{asked} sent, {broken} without an answer, {dropped} not sent",
        ),
        Check(
            "what was refused was told why",
            not odd,
            f"{refused} refused with 429 or 503" + (f", and {odd}" if odd else ""),
        ),
        Check(
            "exactly one answer each, by the journal",
            open_ == 0 and doubled == 0,
            f"{answers} answers, {doubled} requests answered twice, {open_} never",
        ),
        Check("equal answers to equal requests", outcome.unlike == 0, f"{outcome.unlike} differ"),
    ]


def replays(journal: Path) -> Check:
    """The scheduler decides the same again."""
    try:
        with journal.open("rb") as lines:
            count = replay(lines, str(journal)).agreed
    except InvariantError as error:
        return Check("the journal replays", False, str(error).splitlines()[0])
    return Check("the journal replays", True, f"{count} events, the same commands")


def _answers(journal: Path) -> tuple[int, int, int]:
    """Requests of a journal that were never answered, that were answered more than once, and
    answers in all."""
    answers: dict[RequestId, int] = {}
    with journal.open("rb") as lines:
        for entry in read(lines, str(journal))[1]:
            if isinstance(entry.event, RequestArrived):
                answers.setdefault(entry.event.request, 0)
            for command in entry.commands:
                if isinstance(command, Complete | Reject):
                    answers[command.request] = answers.get(command.request, 0) + 1
    counts = answers.values()
    return (
        sum(count == 0 for count in counts),
        sum(count > 1 for count in counts),
        sum(counts),
    )


def passed(checks: Sequence[Check]) -> bool:
    """Whether all of them were."""
    return all(check.passed for check in checks)
