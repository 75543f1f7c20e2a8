"""Harpagon's latency splitting (§3): greedy by cost saved over latency spent, node merger,
cost-direct, and reassignment of what is left.

The text leaves details open; what is reconstructed here: the steps of a module are the latencies
its configurations have when all of the rate collects their batches, a step's worth is the change of
the module's scheduled cost, and cost-direct starts anew from each state of the greedy path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tenantdl.plan.dag import Application, ApplicationPlan, slack, successors
from tenantdl.plan.harpagon import PAPER, Rules, schedule
from tenantdl.plan.module import ModulePlan

_FORGIVEN = 1 + 1e-9
_REASSIGN_ROUNDS = 8

Schedule = Callable[[int, float], ModulePlan | None]
Steps = list[tuple[float, ModulePlan]]


@dataclass(slots=True)
class Modules:
    """Plans of an application's modules by budget, each made once."""

    application: Application
    rules: Rules
    made: dict[tuple[int, float], ModulePlan | None] = field(default_factory=dict)

    def plan(self, module: int, budget_s: float) -> ModulePlan | None:
        """The schedule of a module within a budget."""
        key = (module, budget_s)
        if key not in self.made:
            own = self.application.modules[module]
            self.made[key] = schedule(own.table, own.rate, budget_s, self.rules)
        return self.made[key]

    def steps(self, module: int) -> Steps:
        """Budgets worth giving to a module, ascending, each cheaper than the one before."""
        own = self.application.modules[module]
        budgets = set()
        for entry in own.table:
            alone = entry.duration_s + entry.batch / own.rate
            twice = 2 * entry.duration_s
            budgets.add(twice if self.rules.dispatch == "round-robin" else alone)
            if self.rules.dummy:
                budgets.add(twice)
        steps: Steps = []
        for budget in sorted(budgets):
            if budget > self.application.slo_s * _FORGIVEN:
                break
            plan = self.plan(module, budget * _FORGIVEN)
            if plan is not None and (not steps or plan.cost < steps[-1][1].cost):
                steps.append((budget, plan))
        return steps


def split(application: Application, rules: Rules = PAPER) -> ApplicationPlan | None:
    """A plan by greedy splitting, or None if it finds none. The cheapest is kept of those with and
    without merger and cost-direct, where the rules allow them."""
    modules = Modules(application, rules)
    steps = [modules.steps(number) for number in range(len(application.modules))]
    if not all(steps) or not application.fits([own[0][0] for own in steps]):
        return None
    plans: list[list[ModulePlan]] = []
    for groups in _groupings(application, rules):
        path = descend(application, steps, groups, [0] * len(steps), by_latency=True)
        ends = [path[-1]]
        if rules.cost_direct:
            ends += [
                descend(application, steps, groups, state, by_latency=False)[-1]
                for state in path[-4:]
            ]
        for end in ends:
            chosen = [own[place][1] for own, place in zip(steps, end, strict=True)]
            plans.append(_reassign(application, modules, chosen) if rules.reassign else chosen)
    best = min(plans, key=lambda plan: sum(each.cost for each in plan))
    return ApplicationPlan(tuple(best), "harpagon-paper")


def _groupings(application: Application, rules: Rules) -> list[list[tuple[int, ...]]]:
    """Which modules move together: each alone, and with the merger parallel siblings."""
    alone: list[tuple[int, ...]] = [(number,) for number in range(len(application.modules))]
    if not rules.merger:
        return [alone]
    after = successors(application)
    siblings: dict[object, list[int]] = {}
    for number in range(len(application.modules)):
        before = tuple(m for m in after if number in after[m])
        siblings.setdefault((before, after[number]), []).append(number)
    merged = [tuple(group) for group in siblings.values()]
    return [alone] if len(merged) == len(alone) else [alone, merged]


def descend(
    application: Application,
    steps: Sequence[Steps],
    groups: Sequence[tuple[int, ...]],
    start: Sequence[int],
    *,
    by_latency: bool,
) -> list[list[int]]:
    """States from `start` on, as each module's step; every one the best change of the one before
    that keeps the target."""
    path = [list(start)]
    while True:
        now = path[-1]
        best: tuple[float, list[int]] | None = None
        for group in groups:
            for state in _moves(steps, now, group):
                budgets = [own[place][0] for own, place in zip(steps, state, strict=True)]
                if not application.fits(budgets):
                    continue
                saved = sum(steps[m][now[m]][1].cost - steps[m][state[m]][1].cost for m in group)
                spent = max(steps[m][state[m]][0] - steps[m][now[m]][0] for m in group)
                worth = saved / spent if by_latency else saved
                if best is None or worth > best[0]:
                    best = (worth, state)
        if best is None:
            return path
        path.append(best[1])


def _moves(steps: Sequence[Steps], now: Sequence[int], group: Sequence[int]) -> list[list[int]]:
    """States after `now` in which the group has more latency, all its modules up to the same."""
    states = []
    budgets = sorted({b for m in group for b, _ in steps[m][now[m] + 1 :]})
    for budget in budgets:
        state = list(now)
        for module in group:
            while (
                state[module] + 1 < len(steps[module])
                and steps[module][state[module] + 1][0] <= budget
            ):
                state[module] += 1
        states.append(state)
    return states


def _reassign(
    application: Application, modules: Modules, plans: Sequence[ModulePlan]
) -> list[ModulePlan]:
    """Offer the slack that is left to the module that saves most by it, until none does."""
    now = list(plans)
    for _ in range(_REASSIGN_ROUNDS):
        latencies = [plan.latency_s for plan in now]
        offers: list[tuple[float, int, ModulePlan]] = []
        for number, plan in enumerate(now):
            other = modules.plan(number, slack(application, latencies, number))
            if other is not None and other.cost < plan.cost * (1 - 1e-9):
                offers.append((plan.cost - other.cost, -number, other))
        if not offers:
            break
        _, number, other = max(offers, key=lambda offer: offer[:2])
        now[-number] = other
    return now
