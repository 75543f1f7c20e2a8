"""Which schedules direct convolutions get: facts that time would show only on a quiet machine."""

from __future__ import annotations

from tenantdl.compile.kernels.conv_schedule import choose
from tenantdl.compile.kernels.conv_spec import ConvSpec
from tenantdl.compile.kernels.layout import Border, Packed
from tenantdl.compile.schedules import common_choice
from tenantdl.compile.target import parse_target


def _strided(side: int) -> ConvSpec:
    data = Packed(1, 48, 2 * side, 2 * side, 16, Border(1, 1, 0, 0))
    return ConvSpec(data, Packed(1, 24, side, side, 16), (3, 3), (2, 2), pads=(1, 1))


def test_rows_beyond_l1_are_prefetched() -> None:
    """Without it, PP-OCR's 3×3 of stride 2 takes two to five times as long."""
    target = parse_target("x86_64:icelake-server")
    for cores in (1, 2):
        assert choose(_strided(160), target, cores).prefetch_data
        assert choose(_strided(40), target, cores).prefetch_data
        assert not choose(_strided(6), target, cores).prefetch_data


def test_what_suits_all_buckets_is_taken_unless_it_costs_much() -> None:
    def cycles(schedule: float) -> float:
        return schedule

    assert common_choice([130.0, 114.0], [100.0, 200.0], cycles) == 114.0
    assert common_choice([116.0], [100.0, 200.0], cycles) is None
    assert common_choice([], [100.0], cycles) is None
