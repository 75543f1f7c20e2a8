"""Nonsense in files: a workload or a repository that is not fit is one line that says what and
where, exit code 2; what was served goes on. The slow test tries 20 000 and more."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tenantdl.bundle.manifest import MANIFEST
from tenantdl.cli.main import run
from tenantdl.daemon.catalogue import Catalogue, ServedModel, open_catalogue, scheduler_config
from tenantdl.daemon.front import check_binding
from tenantdl.daemon.repository import Repository
from tenantdl.daemon.stages import with_stages
from tenantdl.errors import UserError
from tenantdl.ids import CoreId, LaneId, TenantId
from tenantdl.load.workload import TenantSection, Workload, load_workload, serving
from tenantdl.sched.batched import BatchedScheduler
from tenantdl.sched.config import LaneSpec
from tenantdl.sched.messages import ModelAdded, ModelRemoved
from tenantdl.units import Ns
from tests.daemon.test_fuzz import spoilt
from tests.exec.fake_lane_backend import fake_bundle

# Every section, and most keys.
WORKLOAD: dict[str, object] = {
    "name": "all",
    "profiles": [],
    "machine": {"cores": [0], "lanes": [[0]]},
    "server": {"host": "127.0.0.1", "port": 0, "grpc_port": 0, "body_mb_max": 8.0},
    "observe": {"log": "json", "requests": True, "sample": 0.5},
    "scheduler": {"policy": "tenantdl", "block_ms": 1.5, "blocks_max": 4, "hang_s": 1.0},
    "load": {"rate": 10.0, "duration_s": 1.0, "arrivals": "poisson", "seed": 1},
    "model": [{"name": "m", "bundle": "fake:4:100"}],
    "tenant": [
        {"name": "a", "models": ["m"], "qos_ms": 50.0, "share": 2.0, "queue_max": 8, "arenas": 2},
        {"name": "b", "bundle": "fake:8:100", "qos_ms": 90.0, "rate": 5.0, "token_sha256": []},
        {"name": "c", "models": ["m"], "qos_ms": 9.0, "batching": "eager", "batch_max": 4},
    ],
}
NAMES = ["one", "two", "a b", "é", "..x", "x" * 200, "new\nline", "-", "%2e", "one"]
ODD = ["NaN", "Infinity", "-Infinity", "1e-300", "1e300", "-0.0", "1e18", "0", "-1", "1.5"]
VERSIONS = ["1", "2", "007", "0", "-1", "999999999", "9999999999", "1e3", "v1", ".1.new", "²", "3"]


def toml(value: object) -> str:
    """`value` as TOML; what TOML has no word for is left as JSON, which is a mistake then."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")


def document(value: dict[str, Any]) -> str:
    """A whole TOML file."""
    return "".join(f"{json.dumps(key)} = {toml(one)}\n" for key, one in value.items())


def somewhere(value: object, rng: random.Random) -> object:
    """`value`, spoilt deep inside where it is deep."""
    if rng.random() < 0.9 and isinstance(value, dict) and value:
        key = rng.choice(list(value))
        return value | {key: somewhere(value[key], rng)}
    if rng.random() < 0.9 and isinstance(value, list) and value:
        place = rng.randrange(len(value))
        return [*value[:place], somewhere(value[place], rng), *value[place + 1 :]]
    if isinstance(value, int | float) and rng.random() < 0.5:
        return type(value)(rng.choice([0, 1, 1, 2, 3, 7, 0.5, 1e-3, 100, 4096, 65535, 2**20, 1e9]))
    return spoilt(value, rng)


def spoilt_text(rng: random.Random) -> bytes:
    """A workload with something wrong in it, more often than not."""
    value = dict(WORKLOAD)
    for _ in range(rng.choice([1, 1, 2, 3])):
        key = rng.choice(list(value))
        value[key] = somewhere(value[key], rng)
        if rng.random() < 0.1:
            odd = re.sub(r"\d[\d.]*", lambda _: rng.choice(ODD), json.dumps(value[key]), count=2)
            with contextlib.suppress(ValueError):
                value[key] = json.loads(odd)
    text = bytearray(document(value).encode())
    for _ in range(rng.choice([0] * 12 + [1, 4])):
        text[rng.randrange(len(text))] = rng.randrange(256)
    return bytes(text[: rng.randrange(len(text))] if rng.random() < 0.1 else text)


def is_one_line(error: UserError) -> bool:
    """As a command says it."""
    return len(error.what) > 3 and "\n" not in error.what and "Traceback" not in error.what


def use(file: Path) -> None:
    """All that `tenantdl serve` makes of a workload before its first process starts."""
    workload = load_workload(file)
    check_binding(workload.server)
    workload = with_stages(workload)
    catalogue = open_catalogue(workload)
    groups = workload.lane_cores((CoreId(0), CoreId(1)))
    lanes = [LaneSpec(LaneId(i), group) for i, group in enumerate(groups)]
    BatchedScheduler(scheduler_config(workload, catalogue, lanes))
    for model in catalogue.models.values():
        catalogue.layout(model)


def fuzz_workloads(folder: Path, count: int, seed: int) -> Counter[bool]:
    rng = random.Random(seed)
    file, seen = folder / "w.toml", Counter[bool]()
    for number in range(count):
        text = spoilt_text(rng)
        file.write_bytes(text)
        try:
            use(file)
            seen[True] += 1
        except UserError as error:
            assert is_one_line(error), (text, str(error))
            seen[False] += 1
            continue
        except Exception as error:
            raise AssertionError((number, text)) from error
    return seen


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fake_bundle(tmp_path, "quick", 4, 100)
    fake_bundle(tmp_path, "slow", 8, 100)
    return tmp_path


def test_a_bad_workload_is_one_line(folder: Path) -> None:
    (folder / "w.toml").write_text(document(WORKLOAD))
    use(folder / "w.toml")
    seen = fuzz_workloads(folder, 1500, seed=1)
    assert seen[True] and seen[False] > 300


def test_the_command_ends_with_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And writes nothing."""
    rng, file = random.Random(3), folder / "w.toml"
    before, tried = sorted(folder.iterdir()), 0
    while tried < 40:
        file.write_bytes(spoilt_text(rng))
        try:
            load_workload(file)
        except UserError:
            tried += 1
            assert run(["serve", str(file), "--journal", str(folder / "j")]) == 2
            said = capsys.readouterr()
            assert said.out == ""
            assert said.err.count("\n") == 1 and said.err.startswith("tenantdl: error: ")
    assert sorted(folder.iterdir()) == sorted([*before, file])


class FakeHost:
    """Takes models in as far as the daemon itself looks at them; lanes are not there."""

    def __init__(self) -> None:
        tenant = TenantSection(name="d", qos_ms=1000)
        self.catalogue = Catalogue({}, {TenantId("d"): tenant})
        workload = serving(Workload(tenant=(tenant,)), {"repository": "r"})
        lanes = [LaneSpec(LaneId(0), (CoreId(0),))]
        self._scheduler = BatchedScheduler(scheduler_config(workload, self.catalogue, lanes))

    async def bring(self, model: ServedModel) -> None:
        self.catalogue.layout(model)
        self._scheduler.handle(ModelAdded(self.catalogue.model_spec(model)), Ns(0))
        model.metadata()
        model.config()
        self.catalogue.add(model)

    async def retire(self, model: ServedModel) -> None:
        self.catalogue.remove(model)
        self._scheduler.handle(ModelRemoved(model.id), Ns(0))


def plant(root: Path, pristine: bytes, rng: random.Random) -> str:
    """Put something somewhere into a repository: a bundle, most of one, or nothing like it; the
    model's name."""
    place = root / rng.choice(NAMES) / rng.choice(VERSIONS)
    if place.parent.is_symlink() or place.parent.is_file():
        place.parent.unlink()
    place.parent.mkdir(exist_ok=True)
    if place.is_symlink() or place.is_file():
        place.unlink()
    shutil.rmtree(place, ignore_errors=True)
    manifest = place / MANIFEST
    match rng.randrange(16):
        case 0:
            place.write_bytes(b"a file")
        case 1:
            place.symlink_to(rng.choice([place, root, root.parent / "nowhere", Path("/dev")]))
        case 2:
            shutil.rmtree(place.parent)
            place.parent.symlink_to(rng.choice([place.parent, root, Path("/etc/passwd")]))
        case 3:
            manifest.mkdir(parents=True)
        case 4:
            place.mkdir()
            os.mkfifo(manifest)
        case 5:
            place.mkdir()
            manifest.symlink_to(rng.choice(["/dev/zero", "/dev/stdin", MANIFEST, "/etc/shadow"]))
        case 6:
            place.mkdir()
            with manifest.open("wb") as sparse:
                sparse.truncate(2**40)
        case 7:
            place.mkdir()
            manifest.write_bytes(pristine[: rng.randrange(len(pristine))])
        case _:
            place.mkdir()
            value = json.loads(pristine)
            for _ in range(rng.choice([0, 1, 1, 2])):
                if isinstance(value, dict) and "plans" in value and rng.random() < 0.8:
                    value = value | {"plans": somewhere(value["plans"], rng)}
                else:
                    value = somewhere(value, rng)
            manifest.write_text(json.dumps(value))
    return place.parent.name


async def fuzz_repository(root: Path, pristine: bytes, count: int, seed: int) -> Counter[str]:
    rng, host, seen = random.Random(seed), FakeHost(), Counter[str]()
    root.mkdir()
    repository = Repository(host, root)
    await repository.start()
    for _ in range(count):
        planted = plant(root, pristine, rng)
        elsewhere = rng.choice([*NAMES, "..", "../one", ".", "", "\x00", "/etc"])
        name = planted if rng.random() < 0.7 else elsewhere
        served = {m.version for m in host.catalogue.models.values() if m.name == name}
        policy = rng.choice([{"all": {}}, {"specific": {"versions": [1, 2]}}, {"latest": None}])
        config = json.dumps(spoilt({"version_policy": policy}, rng))
        try:
            if rng.random() < 0.2:
                await repository.unload(name)
                seen["unloaded"] += 1
                continue
            await repository.load(name, rng.choice([None, config]))
            seen["loaded"] += 1
        except UserError as error:
            assert is_one_line(error), error
            seen["refused"] += 1
            # A failed load leaves what is served as it was.
            still = {m.version for m in host.catalogue.models.values() if m.name == name}
            assert still == served, error
            assert not [e for e in error.what.split() if e in ("IndexError", "TypeError")]
        index = repository.index(ready=False)
        assert not [one for one in index if one["state"] == "LOADING"]
    return seen


@pytest.fixture
def pristine(folder: Path) -> bytes:
    return (folder / "fake:4:100" / MANIFEST).read_bytes()


def test_a_bad_repository_is_one_line(folder: Path, pristine: bytes) -> None:
    seen = asyncio.run(fuzz_repository(folder / "models", pristine, 1500, seed=1))
    assert seen["loaded"] > 30 and seen["refused"] > 300 and seen["unloaded"] > 10


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_much_nonsense_in_files(folder: Path, pristine: bytes) -> None:
    fuzz_workloads(folder, 20_000, seed=2)
    asyncio.run(fuzz_repository(folder / "models", pristine, 10_000, seed=2))
