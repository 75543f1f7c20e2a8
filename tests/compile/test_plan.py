"""The memory plan and the cut into segments, without a compiler."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tenantdl.bundle.manifest import ALIGNMENT, Call
from tenantdl.compile.memory import plan_memory
from tenantdl.compile.operator import Buffer, Kernel, Operator, Program
from tenantdl.compile.segment import TARGET_NS, costs_of, cut

KERNEL = Kernel("k", None)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Random chains with skips, zero borders and views."""
    count = draw(st.integers(1, 25))
    buffers = {"in": Buffer((draw(st.integers(1, 300)),), "float32")}
    operators = []
    for i in range(count):
        zeros = draw(st.sampled_from(["", "", "border"]))
        size = draw(st.sampled_from([16, 64, 100, 333]))
        buffers[f"b{i}"] = Buffer((size,), "float32", zeros)
        names = ["in", *(f"b{j}" for j in range(i))]
        reads = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3))
        operators.append(Operator(f"o{i}", "t", KERNEL, (*reads, f"b{i}")))
    buffers["view"] = Buffer((4,), "float32", base=f"b{count - 1}", offset=8)
    return Program(operators, buffers, {}, ["in"], ["view"])


@given(programs())
def test_living_buffers_never_overlap(program: Program) -> None:
    plan = plan_memory(program)
    last = len(program.operators)
    spans: dict[str, tuple[int, int]] = {"in": (-1, -1)}
    for i, operator in enumerate(program.operators):
        for name in operator.args:
            first, _ = spans.get(name, (i, i))
            spans[name] = (first, i)
    root = f"b{last - 1}"
    spans[root] = (spans[root][0], last)
    names = list(spans)
    for i, a in enumerate(names):
        begin, end = plan.arena[a], plan.arena[a] + 4 * program.buffers[a].shape[0]
        assert begin % ALIGNMENT == 0
        assert end <= plan.arena_bytes
        for b in names[i + 1 :]:
            other = plan.arena[b], plan.arena[b] + 4 * program.buffers[b].shape[0]
            disjoint = end <= other[0] or other[1] <= begin
            together = spans[a][0] <= spans[b][1] and spans[b][0] <= spans[a][1]
            assert disjoint or not together
            # What must stay zero is never written by a buffer without the same border.
            if program.buffers[a].zeros != program.buffers[b].zeros:
                assert disjoint
    assert plan.arena["view"] == plan.arena[root] + 32


@given(st.lists(st.tuples(st.integers(0, 9_000_000), st.integers(0, 40)), min_size=1, max_size=60))
def test_segments_cover_and_stay_small(pairs: list[tuple[int, int]]) -> None:
    costs = [cost for cost, _ in pairs]
    calls = [Call("x", "x", "x", (), 0, 0, loop) for _, loop in pairs]
    segments = cut(costs, calls)
    assert segments[0].begin == 0
    assert segments[-1].end == len(costs)
    for left, right in pairwise(segments):
        whole = left.part == left.parts - 1
        assert (right.begin, right.part) == (
            (left.end, 0) if whole else (left.begin, left.part + 1)
        )
    assert list(costs_of(segments, costs)) == [segment.cost_ns for segment in segments]
    for segment in segments:
        if segment.parts > 1:  # a long operator whose loop has at least two iterations a part
            assert segment.end == segment.begin + 1
            assert 2 * segment.parts <= calls[segment.begin].loop
            continue
        assert segment.cost_ns == sum(costs[segment.begin : segment.end])
        # Only a single long operator makes a segment longer than one target and a fifth.
        assert segment.cost_ns <= TARGET_NS * 1.2 or segment.end == segment.begin + 1
