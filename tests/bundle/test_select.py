"""Which plan takes which shapes, padded where that is allowed; outputs cut back."""

from __future__ import annotations

import numpy as np
import pytest

from tenantdl.bundle.manifest import Padding, Plan, Segment, Tensor
from tenantdl.bundle.select import Selector, padded_to


def plan(batch: int, length: int) -> Plan:
    x = Tensor("x", "float32", (batch, length, 3), 0)
    outputs = (Tensor("y", "float32", (batch, length), 0), Tensor("z", "float32", (batch, 5), 0))
    return Plan(batch, 64, (x,), outputs, (), (Segment(0, 1, 1),), "estimated")


PLANS = [plan(batch, length) for length in (8, 4) for batch in (1, 2)]
PADDING = Padding((("x", 1),), (("y", 1),))


@pytest.mark.parametrize(
    ("shape", "number"),
    [((1, 8, 3), 0), ((2, 8, 3), 1), ((1, 4, 3), 2), ((1, 3, 3), 2), ((2, 5, 3), 1)],
)
def test_the_smallest_plan_that_takes_the_inputs(shape: tuple[int, ...], number: int) -> None:
    fit = Selector(PLANS, PADDING).find({"x": shape})
    assert fit is not None
    assert (fit.plan, fit.requests, fit.extent) == (number, shape[0], shape[1])


@pytest.mark.parametrize("shape", [(1, 9, 3), (3, 4, 3), (1, 4, 2), (1, 4), ()])
def test_what_no_plan_takes(shape: tuple[int, ...]) -> None:
    assert Selector(PLANS, PADDING).find({"x": shape}) is None
    assert Selector(PLANS, PADDING).find({"w": (1, 4, 3)}) is None


def test_without_padding_lengths_are_exact() -> None:
    selector = Selector(PLANS, None)
    assert selector.find({"x": (1, 3, 3)}) is None
    fit = selector.find({"x": (1, 4, 3)})
    assert fit is not None and fit.plan == 2


def test_padded_inputs_and_cut_outputs() -> None:
    selector = Selector(PLANS, PADDING)
    inputs = {"x": np.ones((1, 3, 3), np.float32)}
    fit = selector.find({"x": (1, 3, 3)})
    assert fit is not None
    padded = padded_to(PLANS[1], inputs)["x"]
    assert padded.shape == (2, 8, 3)
    assert padded.sum() == 9
    whole = {"y": np.zeros((1, 4), np.float32), "z": np.zeros((1, 5), np.float32)}
    assert {name: array.shape for name, array in selector.cut(fit, whole).items()} == {
        "y": (1, 3),
        "z": (1, 5),
    }


def test_inputs_that_are_not_of_one_request_each_are_left_alone() -> None:
    def mixed(batch: int) -> Plan:
        x, k = Tensor("x", "float32", (batch, 3), 0), Tensor("k", "int64", (1,), 64)
        return Plan(batch, 128, (x, k), (x,), (), (Segment(0, 1, 1),), "estimated")

    fit = Selector([mixed(1), mixed(4)], None).find({"x": (4, 3), "k": (1,)})
    assert fit is not None and fit.plan == 1
