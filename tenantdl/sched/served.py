"""Who is served with what: the models and tenants that the scheduler knows, which come and go."""

from __future__ import annotations

from tenantdl.errors import InvariantError
from tenantdl.ids import ModelId, TenantId
from tenantdl.sched.config import ModelSpec, SchedulerConfig, TenantSpec
from tenantdl.sched.costs import PlanCosts
from tenantdl.sched.messages import (
    ModelAdded,
    ModelRemoved,
    SlowdownsLearned,
    TenantDeclared,
    TenantRemoved,
)
from tenantdl.sched.queue import RankedQueue, RankFunction
from tenantdl.sched.state import Model, Tenant
from tenantdl.units import Ns

Change = ModelAdded | ModelRemoved | SlowdownsLearned | TenantDeclared | TenantRemoved


class Served:
    """Models and tenants by name."""

    def __init__(self, config: SchedulerConfig, cores_max: int, rank: RankFunction) -> None:
        self.models: dict[ModelId, Model] = {}
        self.tenants: dict[TenantId, Tenant] = {}
        self._block_target: Ns = config.block_target
        self._cores_max = cores_max
        self._rank = rank
        for model in config.models:
            self._add_model(model)
        for tenant in config.tenants:
            self._declare_tenant(tenant)

    def change(self, event: Change) -> bool:
        """Take `event` in; whether policies that prepare for a load have to do so anew. Raises
        InvariantError for a model that is there already, and where something goes that has requests
        or never was there."""
        match event:
            case ModelAdded():
                self._add_model(event.spec)
            case TenantDeclared():
                self._declare_tenant(event.spec)
            case ModelRemoved():
                if event.model not in self.models or self.models[event.model].live:
                    raise InvariantError(f"model {event.model} cannot be removed")
                del self.models[event.model]
            case TenantRemoved():
                if event.tenant not in self.tenants or self.tenants[event.tenant].live:
                    raise InvariantError(f"tenant {event.tenant} cannot be removed")
                del self.tenants[event.tenant]
            case SlowdownsLearned():
                costs = self.plan_costs(event.model, event.plan)
                costs.learn(event.variant, event.slowdowns)
                return False
            case _:
                raise TypeError(f"not an event: {event!r}")
        return True

    def plan_costs(self, model: ModelId, plan: int) -> PlanCosts:
        """The costs of plan number `plan` of `model`."""
        try:
            return self.models[model].costs[plan]
        except (KeyError, IndexError):
            raise InvariantError(f"plan {plan} of model {model} was never declared") from None

    def _add_model(self, spec: ModelSpec) -> None:
        if spec.model in self.models:
            raise InvariantError(f"model {spec.model} is there already")
        costs = (PlanCosts(plan, self._block_target, self._cores_max) for plan in spec.plans)
        self.models[spec.model] = Model(spec, tuple(costs))

    def _declare_tenant(self, spec: TenantSpec) -> None:
        if known := self.tenants.get(spec.tenant):
            known.spec = spec
        else:
            self.tenants[spec.tenant] = Tenant(spec, RankedQueue(self._rank))
