"""The tournament against a plain minimum."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tenantdl.sched.batching.tournament import NEVER, Tournament


@given(
    st.integers(1, 9).flatmap(
        lambda n: st.tuples(
            st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, 5)))
        )
    )
)
def test_best_is_the_smallest_key_and_the_lowest_number(
    case: tuple[int, list[tuple[int, int]]],
) -> None:
    count, changes = case
    tournament, keys = Tournament(count), [NEVER] * count
    assert (tournament.best, tournament.key) == (0, NEVER)
    for number, key in changes:
        keys[number] = key
        tournament.set(number, key)
        best = min(range(count), key=lambda i: (keys[i], i))
        assert (tournament.best, tournament.key) == (best, keys[best])
        assert [tournament.key_of(i) for i in range(count)] == keys
