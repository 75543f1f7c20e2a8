"""`bench interference`: how well slowdowns are predicted, and what wrong choices cost.

Two splits: `mixes`, where no mix of the test was seen in training, and `models`, where no model of
it was (every model is left out in turn, wherever it took part). Rows are of one machine, split and
predictor. Errors are of slowdowns: `mape` in %, `p95_error` the 95th percentile of relative errors
in %, `r2`. `regret` in %: how much longer the variants take that the predictor picks, than the best
in hindsight would have. Predictors are those of `predict.model`, and `tables`: ours in the form
that the scheduler reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tenantdl.errors import UserError
from tenantdl.predict.export import Tables, typical
from tenantdl.predict.features import Array, slowdowns
from tenantdl.predict.model import PREDICTORS, Boosted, Predictor
from tenantdl.predict.samples import Party, Room, Sample
from tenantdl.profile.samples import encounters
from tenantdl.profile.store import Store
from tenantdl.profile.subjects import room as this_room
from tenantdl.sim.campaign import campaign, room
from tenantdl.sim.machines import load_machine

Row = dict[str, Any]
# Of the mixes, held out to test.
TEST = 0.25
QUANTILE = 0.95


class Meeting(NamedTuple):
    """A victim's variants in one company, in samples; and how slow each was in truth, or as well
    as that is known."""

    samples: tuple[Sample, ...]
    truth: tuple[float, ...]


class Fold(NamedTuple):
    """What is learned from, and what is asked."""

    train: list[Meeting]
    test: list[Meeting]


def simulated(machine: str, count: int, seed: int) -> list[Row]:
    """Rows of a campaign of `count` encounters on a declared machine. Raises UserError."""
    file = load_machine(machine)
    meetings = [Meeting(e.samples, e.truth) for e in campaign(file, count, seed)]
    return evaluate(file.name, meetings, room(file), seed, label="simulated")


def measured(profile: Path, seed: int) -> list[Row]:
    """Rows of this machine's `profile`: what its campaign measured stands for the truth. Raises
    UserError."""
    if not profile.is_file():
        raise UserError("no such profile", where=str(profile))
    with Store(profile) as store:
        met = encounters(store)
    meetings = [Meeting(samples, tuple(s.slowdown for s in samples)) for samples in met]
    if not meetings:
        raise UserError("holds nothing of a campaign: profile with --corun", where=str(profile))
    return evaluate("this", meetings, this_room(), seed, label="measured")


def evaluate(
    machine: str, meetings: Sequence[Meeting], shared: Room, seed: int, *, label: str
) -> list[Row]:
    """Rows of both splits and all predictors."""
    splits: dict[str, Callable[[], Iterator[Fold]]] = {
        "mixes": lambda: iter([by_mixes(meetings, seed)]),
        "models": lambda: by_models(meetings),
    }
    known = typical([sample for meeting in meetings for sample in meeting.samples])
    rows = []
    for split, folds in splits.items():
        outcomes: dict[str, list[_Outcome]] = {}
        for fold in folds():
            train = [sample for meeting in fold.train for sample in meeting.samples]
            if train and fold.test:
                for name, predictor in _learned(train, known, shared, seed).items():
                    outcomes.setdefault(name, []).append(_tried(predictor, fold.test))
        for name, tried in outcomes.items():
            row = {"machine": machine, "split": split, "predictor": name}
            rows.append(row | _figures(tried) | {"label": label})
    return rows


def _learned(
    train: Sequence[Sample], known: dict[str, list[Party]], shared: Room, seed: int
) -> dict[str, Predictor]:
    predictors = {name: learn(train, shared, seed) for name, learn in PREDICTORS.items()}
    return predictors | {"tables": Tables(predictors["xgboost"], known, train, shared)}


def by_mixes(meetings: Sequence[Meeting], seed: int) -> Fold:
    """A quarter of the mixes is asked."""
    mixes = sorted({meeting.samples[0].mix for meeting in meetings})
    order = np.random.default_rng(seed).permutation(len(mixes)).tolist()
    held = {mixes[index] for index in order[: max(1, round(TEST * len(mixes)))]}
    return Fold(
        [m for m in meetings if m.samples[0].mix not in held],
        [m for m in meetings if m.samples[0].mix in held],
    )


def by_models(meetings: Sequence[Meeting]) -> Iterator[Fold]:
    """Each victim in turn is asked, in companies of anybody; whatever it took part in is not
    learned from."""
    for model in sorted({meeting.samples[0].victim.model for meeting in meetings}):
        yield Fold(
            [m for m in meetings if model not in m.samples[0].models()],
            [m for m in meetings if m.samples[0].victim.model == model],
        )


class _Outcome(NamedTuple):
    measured: Array
    predicted: Array
    upper: Array | None
    regrets: list[float]


def _tried(predictor: Predictor, test: Sequence[Meeting]) -> _Outcome:
    samples = [sample for meeting in test for sample in meeting.samples]
    predicted = predictor.predict(samples)
    upper = predictor.quantile(samples, QUANTILE) if isinstance(predictor, Boosted) else None
    regrets = []
    for meeting in test:
        alone = np.array([sample.victim.alone_ns for sample in meeting.samples])
        truth = alone * np.array(meeting.truth)
        if len(truth) > 1:
            picked = predictor.choose(meeting.samples)
            regrets.append(float(truth[picked] / truth.min() - 1))
    return _Outcome(slowdowns(samples), predicted, upper, regrets)


def _figures(outcomes: Sequence[_Outcome]) -> Row:
    measured = np.concatenate([outcome.measured for outcome in outcomes])
    predicted = np.concatenate([outcome.predicted for outcome in outcomes])
    errors = np.abs(predicted / measured - 1)
    spread = float(((measured - measured.mean()) ** 2).sum())
    regrets = [regret for outcome in outcomes for regret in outcome.regrets]
    row: Row = {
        "mape": round(100 * float(errors.mean()), 3),
        "r2": round(1 - float(((predicted - measured) ** 2).sum()) / max(spread, 1e-12), 4),
        "p95_error": round(100 * float(np.quantile(errors, 0.95)), 3),
        "regret": round(100 * float(np.mean(regrets)), 3) if regrets else None,
        "samples": len(measured),
        "slowdown_mean": round(float(measured.mean()), 4),
    }
    if all(outcome.upper is not None for outcome in outcomes):
        upper = np.concatenate([o.upper for o in outcomes if o.upper is not None])
        row["coverage_p95"] = round(float((measured <= upper).mean()), 4)
    return row
