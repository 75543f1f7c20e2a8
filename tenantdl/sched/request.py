"""A request inside the scheduler: its states, and the one table that says which may follow which.

WAITING   in its tenant's queue; holds no arena
PLACED    a launch was issued, the lane has not said that it began
RUNNING   a lane runs its blocks
PARKED    preempted: keeps its arena, and by preference its lane
DONE, REFUSED   answered
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field

from tenantdl.errors import InvariantError
from tenantdl.ids import LaneId, ModelId, RequestId, TenantId
from tenantdl.sched.costs import PlanCosts
from tenantdl.sched.messages import Launch, Reason, RequestArrived
from tenantdl.units import Ns

_STORY_LENGTH = 16


class State(enum.Enum):
    """Where a request is in its life."""

    WAITING = "waiting"
    PLACED = "placed"
    RUNNING = "running"
    PARKED = "parked"
    DONE = "done"
    REFUSED = "refused"

    # Members are unique; an enum's own hash is that of its name, which takes ten times as long.
    __hash__ = object.__hash__


TRANSITIONS: dict[State, frozenset[State]] = {
    State.WAITING: frozenset({State.PLACED, State.REFUSED}),
    # Superseded before it began: back where it was. Lane lost: WAITING or REFUSED.
    State.PLACED: frozenset({State.RUNNING, State.WAITING, State.PARKED, State.REFUSED}),
    # To PLACED: one launch is through, the next is on its way to the lane.
    State.RUNNING: frozenset(
        {State.DONE, State.PLACED, State.PARKED, State.WAITING, State.REFUSED}
    ),
    # To WAITING: its arena was taken for one that can still be in time.
    State.PARKED: frozenset({State.PLACED, State.WAITING, State.REFUSED}),
    State.DONE: frozenset(),
    State.REFUSED: frozenset(),
}


# When, from and to which state, at which segment.
_Chapter = tuple[Ns, State, State, int]


@dataclass(slots=True, eq=False)
class Request:
    """One live request. `seq` is its place in the order of arrival; `progress`: segments done.

    `latest`: when it had to start at its arrival, on the fewest cores that its target takes.
    `lane`: the lane it is on or was last on; `group`: the mask of the cores it had there.
    `before`: its launch that ran last. `costs`: its plan's. `late`: it cannot meet its deadline any
    more (never taken back). `doomed`: to be refused with this reason as soon as no lane holds it.
    """

    id: RequestId
    tenant: TenantId
    model: ModelId
    plan: int
    seq: int
    costs: PlanCosts
    arrived: Ns
    deadline: Ns
    latest: Ns
    expires: Ns
    priority: int
    state: State = State.WAITING
    progress: int = 0
    lane: LaneId | None = None
    group: int = 0
    variant: int = 0
    before: Launch | None = None
    arena: int | None = None
    attempts: int = 0
    late: bool = False
    doomed: Reason | None = None
    story: deque[_Chapter] = field(default_factory=lambda: deque(maxlen=_STORY_LENGTH))

    def move(self, state: State, now: Ns) -> None:
        """Change state; raises InvariantError where the table forbids it."""
        if state not in TRANSITIONS[self.state]:
            raise self.broken(f"{self.state.name} -> {state.name} is not allowed")
        self.story.append((now, self.state, state, self.progress))
        self.state = state

    def broken(self, what: str) -> InvariantError:
        """An InvariantError with this request's story."""
        story = [f"{self.arrived} arrived, deadline {self.deadline}"]
        for now, before, after, progress in self.story:
            story.append(f"{now} {before.name} -> {after.name} at segment {progress}")
        return InvariantError(f"request {self.id} of {self.tenant}: {what}", tuple(story))


def arrived_request(
    event: RequestArrived, seq: int, costs: PlanCosts, now: Ns, reserve: int = 0
) -> Request:
    """The request that `event` announces, `seq`-th of all. `reserve`: of the time that it has, in
    1/1000, what is not for running it."""
    deadline = Ns(event.deadline - max(0, event.deadline - now) * reserve // 1000)
    cores = costs.enough(max(0, deadline - now))
    return Request(
        id=event.request,
        tenant=event.tenant,
        model=event.model,
        plan=event.plan,
        seq=seq,
        costs=costs,
        arrived=now,
        deadline=deadline,
        latest=Ns(deadline - costs.at(0, cores).remaining(0)),
        expires=event.expires,
        priority=event.priority,
    )
