"""The experiment: splits that hide what they say, every predictor in both, ours ahead."""

from __future__ import annotations

import pytest

from tenantdl.bench.interference import Meeting, by_mixes, by_models, simulated
from tenantdl.predict.export import typical
from tenantdl.sim.campaign import campaign, room, variants
from tenantdl.sim.machines import load_machine

MACHINE = load_machine("64-core")


@pytest.fixture(scope="module")
def meetings() -> list[Meeting]:
    return [Meeting(e.samples, e.truth) for e in campaign(MACHINE, 60, 1)]


def test_campaigns_repeat_and_fit_the_machine(meetings: list[Meeting]) -> None:
    again = campaign(MACHINE, 60, 1)
    assert [m.truth for m in meetings] == [e.truth for e in again]
    for meeting in meetings:
        for sample, truth in zip(meeting.samples, meeting.truth, strict=True):
            cores = sample.victim.cores + sum(other.cores for other in sample.others)
            assert cores <= 64
            assert sample.others
            assert truth > 0.95
            assert sample.slowdown == pytest.approx(truth, rel=0.06)
    assert room(MACHINE).bandwidth == MACHINE.bandwidth_gbs


def test_splits_hide_what_they_say(meetings: list[Meeting]) -> None:
    fold = by_mixes(meetings, 1)
    assert {m.samples[0].mix for m in fold.train}.isdisjoint(m.samples[0].mix for m in fold.test)
    assert len(fold.train) + len(fold.test) == len(meetings)
    for fold in by_models(meetings):
        (model,) = {m.samples[0].victim.model for m in fold.test}
        assert all(model not in m.samples[0].models() for m in fold.train)


def test_variants_are_found_in_the_meetings(meetings: list[Meeting]) -> None:
    found = typical([sample for meeting in meetings for sample in meeting.samples])
    assert set(found) <= set(variants(MACHINE))
    assert all([p.variant for p in parties] == list(range(5)) for parties in found.values())


def test_ours_errs_least_and_chooses_best() -> None:
    rows = {(r["split"], r["predictor"]): r for r in simulated("64-core", 250, 1)}
    assert {split for split, _ in rows} == {"mixes", "models"}
    for split in ("mixes", "models"):
        ours = rows[split, "xgboost"]
        for other in ("none", "linear", "roofline"):
            assert ours["mape"] < rows[split, other]["mape"]
            assert ours["regret"] < rows[split, other]["regret"]
        assert ours["r2"] > 0.5
        assert rows[split, "tables"]["mape"] < rows[split, "linear"]["mape"]
