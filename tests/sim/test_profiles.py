"""Profiles and the scaling model behind them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from tenantdl.errors import UserError
from tenantdl.sched.costs import PlanCosts
from tenantdl.sim import scaling
from tenantdl.sim.profiles import CORE_COUNTS, KNOWN, frontier, profile, slowdowns
from tenantdl.units import MS, US, Ns


def test_published_times_are_taken_as_they_are() -> None:
    counts, table = scaling.published("resnet50")
    variant = profile("resnet50").variants[0]
    for index, count in enumerate(counts):
        costs = variant.costs[variant.cores.index(count)]
        assert np.allclose(np.array(costs) / US, table[:, index], rtol=1e-3)
    assert [sum(c) // US for c in variant.costs[-2:]] == [4342, 6606]


def test_held_out_errors_are_what_the_documents_say() -> None:
    errors = {row.model: row for row in scaling.held_out()}
    assert errors["resnet50"].median < 0.16
    assert errors["googlenet"].median < 0.16
    assert all(0.80 < row.total[0] < row.total[1] < 1.20 for row in errors.values())


def test_no_coefficient_is_negative() -> None:
    assert (scaling.fit() >= 0).all()
    assert scaling.fit().max() > 0


@pytest.mark.parametrize("name", KNOWN)
def test_more_cores_are_faster_up_to_a_point(name: str) -> None:
    costs = PlanCosts(profile(name), Ns(MS), 64)
    times = [costs.at(0, count).remaining(0) for count in CORE_COUNTS]
    assert times[:4] == sorted(times[:4], reverse=True)
    assert times[-1] > 0.6 * times[-2]
    assert costs.count == len(scaling.layers(name).macs)


def test_the_frontier_of_versions_has_no_dominated_one() -> None:
    for better, worse in pairwise(frontier()):
        assert better.alone < worse.alone
        assert better.sensitivity > worse.sensitivity
        assert better.pressure > worse.pressure
    assert slowdowns(frontier()[0], 2.0)[-1] == round(1000 * (1 + 2 * frontier()[0].sensitivity))


def test_an_unknown_profile_is_a_user_error() -> None:
    with pytest.raises(UserError, match="profile 'vgg' is unknown; known: bert_large"):
        profile("vgg")
