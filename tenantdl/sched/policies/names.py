"""Policies by name: functions in a dict."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from tenantdl.errors import UserError, nearest
from tenantdl.sched.book import Book
from tenantdl.sched.placing import Decide, arrival, urgency
from tenantdl.sched.policies import blocks, joint, order, partition, planaria
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
    "layerwise": Policy(arrival, blocks.layerwise),
    "fixed-block": Policy(arrival, blocks.fixed_block, parameter=6),
    "static-partition": Policy(arrival, partition.static_partition),
    "thin-instances": Policy(arrival, partition.thin_instances),
    "planaria": Policy(arrival, planaria.planaria),
    "prema": Policy(arrival, planaria.prema),
    "parties": Policy(arrival, partition.parties),
    "veltair-literal": Policy(arrival, blocks.veltair_literal),
    "veltair-as": Policy(arrival, blocks.veltair_as),
    "veltair-ac": Policy(arrival, planaria.veltair_ac),
    "veltair": Policy(arrival, blocks.veltair),
    "tenantdl": Policy(urgency, joint.tenantdl),
}
DEFAULT = "tenantdl"
_NAME = re.compile(r"([a-z-]+)(?:\((\d{1,6})\))?")


def split_names(text: str) -> list[str]:
    """`edf,fixed-block(6)` as names, each of which is known. Raises UserError."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        find_policy(name)
    return names


def find_policy(name: str) -> tuple[Policy, int]:
    """The policy of that name, with its parameter. Raises UserError."""
    match = _NAME.fullmatch(name)
    policy = POLICIES.get(match.group(1)) if match else None
    if match is None or policy is None:
        raise UserError(f"policy {name!r} is unknown{nearest(name, sorted(POLICIES))}")
    given = match.group(2)
    if given and policy.parameter is None:
        raise UserError(f"policy {match.group(1)!r} takes no number, given {name!r}")
    return policy, int(given) if given else policy.parameter or 0
