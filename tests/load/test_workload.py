"""The workload file: what is read, and the one line that says what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenantdl.errors import UserError
from tenantdl.ids import CoreId
from tenantdl.load.workload import json_schema, load_workload, parse_workload
from tenantdl.units import from_ms

ROOT = Path(__file__).resolve().parents[2]
TENANT = '[[tenant]]\nname = "a"\nbundle = "a.bundle"\nqos_ms = 10\n'
OTHER = TENANT.replace('"a"', '"b"')


@pytest.mark.parametrize("file", sorted((ROOT / "workloads").glob("*.toml")), ids=lambda f: f.name)
def test_the_examples_are_valid(file: Path) -> None:
    workload = load_workload(file)
    assert Path(workload.bundles).is_absolute()
    if workload.tenant:
        assert sum(workload.rates().values()) == pytest.approx(workload.load.rate)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = 'bundles = "b"\n[load]\narrivals = "trace"\ntrace = "t.txt"\n' + TENANT
    (tmp_path / "w.toml").write_text(text + 'inputs = "x.npz"')
    workload = load_workload(tmp_path / "w.toml")
    assert workload.bundle_path(workload.tenant[0]) == tmp_path / "b" / "a.bundle"
    assert workload.load.trace == str(tmp_path / "t.txt")
    assert workload.tenant[0].inputs == str(tmp_path / "x.npz")


def test_rates_follow_shares_and_own_rates() -> None:
    text = TENANT + "share = 3\n" + OTHER + OTHER.replace('"b"', '"c"') + "rate = 7\n"
    workload = parse_workload(text)
    assert workload.rates(40) == {"a": 30, "b": 10, "c": 7}
    assert workload.rates() == {"a": 7.5, "b": 2.5, "c": 7}


@pytest.mark.parametrize(
    ("targets", "option", "ahead", "block"),
    [
        ((40, 300), "", True, 4),
        ((25, 300), "", True, 2.5),
        ((500,), "", True, 4),
        ((10, 20), "", True, 1.5),
        ((40, 300), "", False, 1.5),
        ((40, 300), "[scheduler]\nblock_ms = 7", True, 7),
    ],
)
def test_blocks_suit_the_tightest_target(
    targets: tuple[int, ...], option: str, ahead: bool, block: float
) -> None:
    tenants = [f'[[tenant]]\nname = "t{t}"\nbundle = "b"\nqos_ms = {t}\n' for t in targets]
    assert parse_workload("".join(tenants) + option).block_target(ahead) == from_ms(block)


def test_lanes_are_a_core_each_unless_grouped() -> None:
    usable = (CoreId(0), CoreId(1), CoreId(3))
    assert parse_workload(TENANT).lane_cores(usable) == ((0,), (1,), (3,))
    assert parse_workload("[machine]\ncores = [1]\n" + TENANT).lane_cores(usable) == ((1,),)
    grouped = parse_workload("[machine]\nlanes = [[3], [0, 1]]\n" + TENANT)
    assert grouped.lane_cores(usable) == ((3,), (0, 1))


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        ("cores = [2]", "core 2 is not usable here"),
        ("lanes = [[0], [0, 1]]", "core 0 of a lane"),
        ("cores = [0]\nlanes = [[1]]", "core 1 of a lane"),
    ],
)
def test_impossible_lanes_are_refused(machine: str, message: str) -> None:
    workload = parse_workload(f"[machine]\n{machine}\n{TENANT}")
    with pytest.raises(UserError, match=message):
        workload.lane_cores((CoreId(0), CoreId(1)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TENANT + "qos = 3", "w.toml: tenant[0].qos: unknown key, did you mean 'qos_ms'?"),
        (OTHER + TENANT + "shares = 3", "tenant[1].shares: unknown key, did you mean 'share'?"),
        ("nam = 'x'\n" + TENANT, "w.toml: nam: unknown key, did you mean 'name'?"),
        ("[scheduler]\npolicy = 'edff'\n" + TENANT, "'edff' is unknown, did you mean 'edf'?"),
        ("[load]\narrivals = 'x'\n" + TENANT, "known: constant, gamma, poisson, trace"),
        ("[load]\nraet = 1\n" + TENANT, "w.toml: load.raet: unknown key, did you mean 'rate'?"),
        ("[load]\nrate = -1\n" + TENANT, "load.rate: expected float >= 1e-06"),
        ("[load]\narrivals = 'trace'\n" + TENANT, "load.trace: a file, if and only if"),
        (TENANT.replace("10", "'ten'"), "tenant[0].qos_ms: expected float, got str"),
        (TENANT + TENANT, "tenant[1].name: 'a' is there twice"),
        (TENANT + "rate = 1\nshare = 1", "tenant[0]: give rate or share, not both"),
        (TENANT + "queue_max = 2", "tenant[0].arenas: more than queue_max"),
        (TENANT.replace('"a"', '"../a"'), "tenant[0].name: expected str matching"),
        ("", "missing required field tenant"),
        ("format = 2\n" + TENANT, "format: invalid enum value 2"),
        ("a = [", "w.toml: not TOML"),
    ],
)
def test_errors_are_one_line_with_the_key(text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse_workload(text, where="w.toml")
    said = str(error.value)
    assert message in said
    assert "\n" not in said


def test_a_missing_file_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.toml: cannot be read: No such file"):
        load_workload(tmp_path / "none.toml")


def test_the_schema_knows_every_section() -> None:
    definitions = json_schema()["$defs"]
    assert "qos_ms" in definitions["TenantSection"]["properties"]
    assert "slo_ms" in definitions["ApplicationSection"]["properties"]
