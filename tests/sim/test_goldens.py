"""What every policy decides in the same small burst, beside what it decided when this was written.

python tests/sim/test_goldens.py        writes the files anew; read the difference
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tenantdl.load.workload import parse_workload
from tenantdl.sched.journal import entry_line, header_line, replay
from tenantdl.sched.messages import Command, Complete, Event, Launch, Reject
from tenantdl.sched.policies.names import POLICIES
from tenantdl.sim.machines import load_machine
from tenantdl.sim.simulate import Scenario, run, scheduler_config
from tenantdl.units import Ns

HERE = Path(__file__).parent / "goldens"
NAMES = [*sorted(POLICIES), "fixed-block(11)"]
WORKLOAD = """
name = "golden"
[load]
rate = 400
[[tenant]]
name = "yolo"
bundle = "yolo.bundle"
profile = "tiny_yolov2"
qos_ms = 10
[[tenant]]
name = "resnet"
bundle = "resnet.bundle"
profile = "resnet50"
qos_ms = 15
share = 0.3
"""
LINES_MAX = 40


def story(policy: str) -> str:
    """Launches and answers in order: time in µs, request, segments, cores, variant."""
    lines: list[str] = []

    def note(now: Ns, event: Event, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Launch():
                    what = f"r{command.request} [{command.begin}:{command.end}] lane {command.lane}"
                    cores = f"{len(command.cores)} of {command.wanted} cores"
                    lines.append(f"{now // 1000:>7} {what} {cores}, variant {command.variant}")
                case Complete() | Reject():
                    lines.append(f"{now // 1000:>7} r{command.request} {type(command).__name__}")

    run(scenario(policy), observer=note)
    return "\n".join(lines[:LINES_MAX]) + "\n"


def scenario(policy: str) -> Scenario:
    machine = msgspec.structs.replace(load_machine("32-core"), noise=0.0)
    return Scenario(parse_workload(WORKLOAD), machine, policy, 400.0, requests=12)


@pytest.mark.parametrize("policy", NAMES)
def test_the_decisions_are_those_of_the_golden_file(policy: str) -> None:
    assert story(policy) == (HERE / f"{policy}.txt").read_text()


@pytest.mark.parametrize("policy", NAMES)
def test_their_journals_replay_with_all_invariants(policy: str) -> None:
    which = scenario(policy)
    lines = [header_line(scheduler_config(which))]
    run(which, observer=lambda now, event, out: lines.append(entry_line(now, event, out)))
    assert replay(lines, check=True).agreed == len(lines) - 1


if __name__ == "__main__":
    for name in NAMES:
        (HERE / f"{name}.txt").write_text(story(name))
