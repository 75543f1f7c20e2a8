"""Scheduling policies by name. Functions in a dict, no classes to derive from.

A policy is asked whenever something has happened, and answers with launches: which request, on
which cores, in which variant, up to which segment. All of them see the same segments, costs and
events, and are made of the same moves (`placing`).

  model-fcfs        whole models in the order of arrival, each on the cores its target needs
  edf               the same by deadline, preempted at ends of blocks; hopeless requests go last
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from tenantdl.errors import UserError
from tenantdl.sched.book import Book
from tenantdl.sched.placing import Decide, arrival, urgency
from tenantdl.sched.policies import order
from tenantdl.sched.queue import RankFunction


class Policy(NamedTuple):
    """`rank` orders a tenant's waiting requests, first to be served first; `make` gives, for one
    scheduler's book and the number in parentheses behind the name, the function that decides."""

    rank: RankFunction
    make: Callable[[Book, int], Decide]
    parameter: int | None = None


POLICIES: dict[str, Policy] = {
    "model-fcfs": Policy(arrival, order.model_fcfs),
    "edf": Policy(urgency, order.edf),
}
DEFAULT = "edf"
_NAME = re.compile(r"([a-z-]+)(?:\((\d{1,6})\))?")


def find_policy(name: str) -> tuple[Policy, int]:
    """The policy of that name, with its parameter. Raises UserError."""
    match = _NAME.fullmatch(name)
    policy = POLICIES.get(match.group(1)) if match else None
    if match is None or policy is None:
        raise UserError(f"policy {name!r} is unknown; known: {', '.join(sorted(POLICIES))}")
    given = match.group(2)
    if given and policy.parameter is None:
        raise UserError(f"policy {match.group(1)!r} takes no number, given {name!r}")
    return policy, int(given) if given else policy.parameter or 0
