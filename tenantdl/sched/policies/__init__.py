"""Scheduling policies by name. Functions in a dict, no classes to derive from.

A policy is asked whenever something has happened, and answers with launches: which request, on
which cores, in which variant, up to which segment. All of them see the same segments, costs and
events, and are made of the same moves (`placing`).

  model-fcfs        whole models in the order of arrival, each on the cores its target needs
  edf               the same by deadline, preempted at ends of blocks; hopeless requests go last
  layerwise         every segment on the cores that its part of the target needs
  fixed-block(k)    the same for blocks of k segments
  static-partition  fixed cores a tenant, searched for the load
  thin-instances    the same with several narrow instances a tenant (Packrat)
  planaria          all cores shared out anew whenever a request comes or goes
  prema             one request at a time on the whole machine, with tokens
  parties           cores a tenant follow its latency, every 0.1 s
  veltair           adaptive blocks and versions, by the paper's prose; also its halves, veltair-as
                    (scheduling) and veltair-ac (versions), and its printed rule, veltair-literal
  tenantdl          ours, and the default: cores, variant, end of block and start chosen together
"""

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
