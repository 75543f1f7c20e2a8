"""How a daemon's status is shown in a terminal: by `status` once, by `top` again and again."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tenantdl.load.status import Status, TenantStatus

_BARS = " ▁▂▃▄▅▆▇█"
# Seconds of the small chart beside each tenant.
_CHART = 30
_GOOD, _FAIR = 0.99, 0.9


def frame(status: Status) -> Group:
    """All of it: head, tenants, cores, advice."""
    return Group(*_parts(status))


def _parts(status: Status) -> Iterator[RenderableType]:
    yield _head(status)
    yield Text()
    yield _tenants(status)
    yield Text()
    yield _cores(status)
    counts = status.scheduler
    yield Text(
        f"Scheduler  {counts.blocks} blocks, {counts.launches} launches, "
        f"{counts.conflicts} conflicts, {counts.resizes} resizes, {counts.migrations} migrations"
        + (f", batches of {counts.batched / counts.batches:.1f}" if counts.batches else "")
    )
    for model in status.models:
        if model.blocks:
            yield _model(model.name, model.variants, model.blocks, model.actual_over_expected)
    advice = status.advice
    style = "bold red" if advice.wanted > advice.cores else "bold"
    yield Text.assemble(("Advice     ", ""), (f"{advice.wanted} cores. ", style), advice.why)


def _head(status: Status) -> Text:
    lanes = sum(lane.ready for lane in status.lanes)
    state = ("serving", "green") if status.ready else ("not ready", "yellow")
    return Text.assemble(
        (status.workload or "tenantdl", "bold"),
        "  ",
        state,
        f"  up {status.uptime_s:.0f} s  policy {status.scheduler.policy}"
        f"  lanes {lanes} of {len(status.lanes)}  pid {status.pid}  version {status.version}",
    )


def _tenants(status: Status) -> Table:
    shown = Table(box=None, pad_edge=False, header_style="dim", expand=False)
    shown.add_column("Tenant", overflow="fold")
    shown.add_column("Models", overflow="fold")
    columns = ("In time", "Target", "p50", "p99", "Req/s", "Queue", "Core time", "Refused")
    for column in columns:
        shown.add_column(column, justify="right", no_wrap=True)
    shown.add_column(f"Last {_CHART} s", no_wrap=True)
    for tenant in status.tenants:
        shown.add_row(
            tenant.name,
            ", ".join(tenant.models),
            _attainment(tenant.attainment),
            _ms(tenant.qos_ms),
            _ms(tenant.p50_ms),
            _ms(tenant.p99_ms),
            f"{tenant.rate:.1f}",
            f"{tenant.queue}/{tenant.queue_max}",
            f"{100 * tenant.core_share:.0f} %",
            str(sum(tenant.refused.values())),
            _chart(tenant),
        )
    return shown


def _attainment(share: float | None) -> Text:
    if share is None:
        return Text("–")
    style = "green" if share >= _GOOD else "yellow" if share >= _FAIR else "red"
    return Text(f"{100 * share:.1f} %", style=style)


def _chart(tenant: TenantStatus) -> Text:
    """Requests by second; red where one was late or refused."""
    most = max(1, *(ended for ended, _ in tenant.seconds))
    chart = Text()
    for ended, in_time in tenant.seconds[-_CHART:]:
        bar = _BARS[-(-ended * (len(_BARS) - 1) // most)]
        chart.append(bar, style="red" if in_time < ended else "green")
    return chart


def _cores(status: Status) -> Text:
    line = Text("Cores      ")
    for core in status.cores:
        bar = _BARS[round(core.busy * (len(_BARS) - 1))]
        line.append(f"{core.core} ").append(bar, style="cyan").append(f"{100 * core.busy:3.0f} %  ")
    return line


def _model(name: str, variants: dict[int, int], blocks: int, ratio: float | None) -> Text:
    used = sorted(variants.items(), key=lambda item: -item[1])
    shares = ", ".join(f"{number}: {100 * n / blocks:.0f} %" for number, n in used[:4])
    off = "" if ratio is None else f", blocks take {ratio:.2f} of their prediction"
    return Text(f"Model      {name}: {blocks} blocks, variants {shares}{off}")


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g} ms"
