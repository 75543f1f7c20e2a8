from __future__ import annotations

import pytest
from plan.cases import DIAMOND, EXAMPLE

from tenantdl.errors import UserError
from tenantdl.plan.dag import Application, Module, scaled, slack


def _application(edges: tuple[tuple[int, int], ...], count: int = 4) -> Application:
    modules = tuple(Module(f"m{n}", 10.0, EXAMPLE) for n in range(count))
    return Application("a", modules, edges, 1.0)


def test_paths_order_and_critical_path() -> None:
    application = _application(DIAMOND)
    assert application.paths == ((0, 1, 3), (0, 2, 3))
    assert application.order == (0, 1, 2, 3)
    assert application.latency([0.1, 0.2, 0.3, 0.4]) == pytest.approx(0.8)
    assert slack(application, [0.1, 0.2, 0.3, 0.4], 1) == pytest.approx(0.5)
    assert slack(application, [0.1, 0.2, 0.3, 0.4], 0) == pytest.approx(0.3)


def test_modules_without_edges_run_side_by_side() -> None:
    assert _application((), 2).latency([0.3, 0.4]) == 0.4


@pytest.mark.parametrize(
    "edges",
    [((0, 1), (1, 0)), ((0, 0),), ((0, 1), (1, 2), (2, 1), (2, 3)), ((0, 1), (2, 3), (3, 2))],
)
def test_cycles_are_refused(edges: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(UserError, match="a: its modules form a cycle"):
        _application(edges)


def test_edges_lead_somewhere() -> None:
    with pytest.raises(UserError, match="not there"):
        _application(((0, 4),))


def test_scaling() -> None:
    twice = scaled(_application(DIAMOND), rate=2, slo=0.5)
    assert twice.modules[2].rate == 20
    assert twice.slo_s == 0.5
