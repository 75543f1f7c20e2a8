"""Variants: other kernels for the same results in the plan's memory, chosen for what they claim."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nets import Net, reference

from tenantdl.bundle.load import LoadedBundle, load_bundle
from tenantdl.bundle.manifest import calls_of
from tenantdl.compile import variants
from tenantdl.compile.pipeline import compile_model
from tenantdl.compile.schedules import Record, Schedules
from tenantdl.compile.variants import Footprint, Ways
from tenantdl.errors import UserError
from tenantdl.exec.runner import Runner


@pytest.fixture(scope="module")
def net() -> Net:
    """Convolutions (direct, Winograd, squeezed) and products, each with several candidates."""
    net = Net()
    x = net.input(1, 64, 28, 28)
    for _ in range(2):
        x = net.op("Relu", net.op("Conv", x, net.weight(64, 64, 3, 3), pads=[1] * 4))
    x = net.op("Relu", net.op("Conv", x, net.weight(128, 64, 1, 1)))
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    net.output(net.op("MatMul", net.op("MatMul", x, net.weight(128, 256)), net.weight(256, 64)))
    return net


def every_choice(times: variants._Times, ways: Ways, fixed: object) -> dict[str, np.ndarray]:
    """Every way as a variant of its own, whatever was measured."""
    chosen = {"latency": np.zeros(times.alone[0].shape[1], np.int64)}
    for number, way in enumerate(ways.substitutes, 1):
        pick = np.zeros(times.alone[0].shape[1], np.int64)
        pick[[substitute.position for substitute in way]] = number
        chosen[f"way {number}"] = pick
    return chosen


@pytest.fixture(scope="module")
def bundle(net: Net, tmp_path_factory: pytest.TempPathFactory) -> LoadedBundle:
    path = tmp_path_factory.mktemp("bundles") / "net"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variants, "_chosen", every_choice)
        compile_model(net.model(), path, variants=5)
    return load_bundle(path)


def test_every_way_computes_the_same_in_any_mixture(net: Net, bundle: LoadedBundle) -> None:
    plan = bundle.manifest.plans[0]
    assert len(plan.variants) > 2
    for number in range(1, len(plan.variants)):
        assert calls_of(plan, number) != list(plan.calls)
    runner = Runner(bundle)
    expected = reference(net)
    for first in range(len(plan.variants)):
        runner.set_inputs(net.inputs)
        for segment in range(runner.segment_count):  # another variant in every segment
            runner.run_block(segment, segment + 1, (first + segment) % len(plan.variants))
        for name, value in expected.items():
            np.testing.assert_allclose(runner.outputs()[name], value, rtol=2e-4, atol=1e-5)


def test_figures_are_of_all_segments(bundle: LoadedBundle) -> None:
    plan = bundle.manifest.plans[0]
    for variant in plan.variants:
        assert variant.cores[0] == 1
        for figure in (*variant.cost_ns, variant.private_bytes, variant.traffic_bytes):
            assert len(figure) == len(plan.segments)
            assert min(figure) > 0


def test_one_variant_adds_nothing(net: Net, tmp_path: Path) -> None:
    summary = compile_model(net.model(), tmp_path / "one", variants=1)
    plan = load_bundle(tmp_path / "one").manifest.plans[0]
    assert [variant.substitutes for variant in plan.variants] == [()]
    assert summary.variants == 1
    with pytest.raises(UserError, match="between 1 and 5 variants, not 6"):
        compile_model(net.model(), tmp_path / "six", variants=6)


def test_schedules_of_other_ways_keep_the_plans_own_first() -> None:
    """Rank 0 is what the plan has, by record or by prediction; ranks go round it."""
    records = [Record("a", repr("z"), (1,), (1,))]
    own = Schedules(records)
    assert own.pick("a", ["x", "y", "z"]).schedule == "z"
    assert [own.others(rank).pick("a", ["x", "y", "z"]).schedule for rank in (1, 2, 9)] == [
        *("x", "y", "y"),
    ]
    assert own.others(1).pick("b", ["x", "y"]).schedule == "y"
    assert own.pick("b", ["x"], lambda one: (len(one), 7)).footprint == (1, 7)


def _times(alone: list[list[float]], many: list[list[float]], pressed: list[list[float]]) -> object:
    return variants._Times((1, 2), (np.array(alone), np.array(many)), np.array(pressed))


def _ways(private: list[list[int]], traffic: list[list[int]], count: int = 5) -> Ways:
    rows = tuple(
        tuple(Footprint(p, t) for p, t in zip(*pair, strict=True))
        for pair in zip(private, traffic, strict=True)
    )
    return Ways((), rows, count)


def _picked(times: object, ways: Ways, fixed: list[bool] | None = None) -> dict[str, list[int]]:
    fixed = fixed or [False] * len(ways.footprints[0])
    chosen = variants._chosen(times, ways, np.array(fixed))  # type: ignore[arg-type]
    return {goal: pick.tolist() for goal, pick in chosen.items()}


def test_goals_pick_what_serves_them_operator_by_operator() -> None:
    times = _times(
        [[100, 100], [80, 101], [105, 300]],  # the second operator's third way is far too dear
        [[50, 50], [60, 50], [30, 50]],
        [[120, 200], [150, 150], [120, 400]],
    )
    ways = _ways([[9, 9], [9, 9], [9, 1]], [[7, 7], [7, 7], [7, 7]])
    chosen = _picked(times, ways)
    assert chosen["latency"] == [1, 0]
    assert chosen["cores"] == [2, 0]
    assert chosen["pressed"] == [0, 1]
    assert "private" not in chosen  # the small one costs three times the time


def test_what_is_no_better_in_anything_is_dropped_and_the_number_is_kept() -> None:
    same = [[100.0, 100.0], [99.0, 99.0]]
    ways = _ways([[9, 9], [9, 9]], [[7, 7], [7, 7]])
    assert list(_picked(_times(same, same, same), ways)) == ["latency"]
    better = [[100.0, 100.0], [50.0, 50.0]]
    few = _ways([[9, 9], [1, 1]], [[7, 7], [7, 7]], count=1)
    assert len(_picked(_times(same, better, same), few)) == 1


def test_operators_that_are_run_in_parts_keep_their_kernel() -> None:
    """And a goal that only they could serve is none."""
    alone, many = [[100.0, 100.0]] * 2, [[50.0, 50.0], [50.0, 30.0]]
    times, ways = _times(alone, many, alone), _ways([[9, 9], [9, 9]], [[7, 7], [7, 7]])
    assert _picked(times, ways)["cores"] == [0, 1]
    assert list(_picked(times, ways, [False, True])) == ["latency"]
