"""Who waits for what: tickets by request, and the batches that stand for several of them."""

from __future__ import annotations

from tenantdl.daemon.calls import Ticket
from tenantdl.ids import RequestId
from tenantdl.sched.messages import Dissolved, Gathered


class Tickets(dict[RequestId, Ticket]):
    """The tickets of all requests inside."""

    def __init__(self) -> None:
        super().__init__()
        self._batches: dict[RequestId, Gathered] = {}

    def note(self, command: Gathered | Dissolved) -> None:
        """From now on some requests are one for the lanes, or are not any more."""
        if isinstance(command, Gathered):
            self._batches[command.batch.request] = command
        else:
            del self._batches[command.request]

    def of(self, number: RequestId) -> list[Ticket]:
        """Those of what the scheduler calls request `number`: one, or a batch."""
        members = self._batches[number].members if number in self._batches else (number,)
        return [self[member] for member in members]

    def plan(self, number: RequestId) -> int:
        """The plan that runs for it."""
        batch = self._batches.get(number)
        return batch.batch.plan if batch else self[number].call.plan
