"""Who waits for what: tickets by request, and the batches that stand for several of them."""

from __future__ import annotations

from collections.abc import Mapping

from tenantdl.daemon.calls import Ticket
from tenantdl.daemon.tenants import Memory
from tenantdl.exec.lane_handle import Address
from tenantdl.ids import ModelId, RequestId
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

    def address(self, number: RequestId, memory: Mapping[ModelId, Memory]) -> Address:
        """Where it is, for a lane."""
        tickets = self.of(number)
        call, slots = tickets[0].call, tuple(ticket.slot for ticket in tickets)
        program = memory[call.model].programs.base + self.plan(number)
        return Address(program, slots, call.plan)

    def plan(self, number: RequestId) -> int:
        """The plan that runs for it."""
        batch = self._batches.get(number)
        return batch.batch.plan if batch else self[number].call.plan
