"""Models in and out of lanes while others are served: memory, scheduler and catalogue in step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tenantdl.daemon.catalogue import Catalogue, ServedModel, tenant_spec
from tenantdl.daemon.tenants import Memory, open_memory
from tenantdl.exec.lane_pool import LanePool
from tenantdl.ids import ModelId, TenantId
from tenantdl.load.workload import Workload
from tenantdl.sched.messages import Event, ModelAdded, ModelRemoved, TenantDeclared

Done = Callable[[Exception | None], None]


class Hosting:
    """`memory`: of every model that has any. `tell`: an event for the scheduler."""

    def __init__(
        self,
        workload: Workload,
        catalogue: Catalogue,
        pool: LanePool,
        tell: Callable[[Event], None],
    ) -> None:
        self.memory: dict[ModelId, Memory] = {}
        self._workload = workload
        self.catalogue = catalogue
        self._pool = pool
        self._tell = tell
        self._emptied: dict[ModelId, asyncio.Future[None]] = {}
        self._mostly = {name: self._main(name) for name in catalogue.tenants}

    def begin(self, done: Done) -> None:
        """Have the models of the catalogue loaded; `done` is called for each of them."""
        for model in self.catalogue.models.values():
            programs = self._pool.attach(self.catalogue.layout(model), done)
            self.memory[model.id] = open_memory(programs)

    async def bring(self, model: ServedModel) -> None:
        """Load `model` while others are served; from then on the catalogue has it. Raises what was
        wrong with it."""
        loaded, done = _future()
        programs = self._pool.attach(self.catalogue.layout(model), done)
        await loaded
        self.memory[model.id] = open_memory(programs)
        self._tell(ModelAdded(self.catalogue.model_spec(model)))
        self.catalogue.add(model)
        self._declare()

    async def retire(self, model: ServedModel) -> None:
        """Serve `model` to nobody new; return when its requests have ended and lanes have forgotten
        it."""
        self.catalogue.remove(model)
        memory = self.memory.get(model.id)
        if memory is None:
            return
        self._declare()
        if memory.used:
            emptied: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._emptied[model.id] = emptied
            await emptied
        del self.memory[model.id]
        self._tell(ModelRemoved(model.id))
        forgotten, done = _future()
        self._pool.detach(memory.programs, done)
        await forgotten

    def leave(self, model: ModelId, slot: int) -> None:
        """A request has ended: its slot is free."""
        memory = self.memory[model]
        memory.free.append(slot)
        if model in self._emptied and not memory.used:
            self._emptied.pop(model).set_result(None)

    def _declare(self) -> None:
        """Tell the scheduler whose main model is another one now."""
        for name in self.catalogue.tenants:
            if (main := self._main(name)) != self._mostly[name]:
                self._mostly[name] = main
                self._tell(TenantDeclared(tenant_spec(self._workload, self.catalogue, name)))

    def _main(self, name: TenantId) -> ModelId | None:
        model = self.catalogue.mostly(name)
        return model.id if model else None


def _future() -> tuple[asyncio.Future[None], Done]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(error: Exception | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    return future, done
