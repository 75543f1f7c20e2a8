"""`tenantdl doctor`: is this machine fit to serve, who disturbs it, what would help."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from tenantdl.cli.doctor_check import Check
from tenantdl.cli.options import Json
from tenantdl.machine import Machine, this_machine

PROBE_S = 0.3


def register(app: typer.Typer) -> None:
    """Add the command of this module to `app`."""
    app.command(name="doctor")(doctor_command)


def doctor_command(
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out the probe for noisy neighbours.")
    ] = False,
    json: Json = None,
) -> None:
    """Check this machine: CPU, cores, quota, memory, compiler, packages, noisy neighbours."""
    from tenantdl.cli import render

    found = list(checks(this_machine(), probe_s=0.0 if quick else PROBE_S))
    if json:
        render.results(json, [{"experiment": "doctor", **asdict(check)} for check in found])
    if str(json) != "-":
        rows = [(check.state, check.what, check.found, check.advice) for check in found]
        render.table("", ["", "Check", "Found", "Advice"], rows)
    if any(check.state == "fail" for check in found):
        raise typer.Exit(1)


def checks(machine: Machine, *, probe_s: float = 0.0) -> Iterator[Check]:
    """Everything that is looked at, on `machine` and in this environment. `probe_s`: how long each
    core is watched for interruptions (0: not at all)."""
    from tenantdl.cli import doctor_machine, doctor_noise, doctor_software

    yield from doctor_machine.checks(machine)
    yield from doctor_software.checks()
    yield from doctor_noise.checks(machine.cores, probe_s)
