"""A folder of models, loaded, replaced and unloaded while served. Lanes run a fake backend."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tenantdl.bundle.manifest import MANIFEST
from tenantdl.daemon import RunningDaemon, running_daemon
from tenantdl.load.workload import Workload, parse_workload, serving
from tenantdl.machine import usable_cores
from tenantdl.sched.journal import replay
from tests.exec.fake_lane_backend import fake_bundle

FAKES = Path(__file__).parents[1] / "exec"
ALICE, BOB, ROOT = "alice-token", "bob-token", "operator-token"


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def put(root: Path, name: str, version: int, segments: int, micros: int = 100) -> None:
    """A version of a model that adds its number of segments, moved into place whole."""
    folder = root / name / str(version)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = root.parent / f"aside-{time.monotonic_ns()}"
    made = fake_bundle(aside, name, segments, micros)
    target = root / name / f".{version}.new"
    # The fake backend reads what to do from the bundle's path.
    shutil.rmtree(target, ignore_errors=True)
    made.rename(target)
    (target / "behaviour").write_text(f"fake:{segments}:{micros}")
    if folder.exists():
        shutil.rmtree(folder)
    target.rename(folder)


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{FAKES}:{FAKES.parents[1]}")


def on_one_core(workload: Workload, root: Path, **server: object) -> Workload:
    import msgspec

    core = usable_cores()[0]
    machine = msgspec.structs.replace(workload.machine, cores=(core,))
    return serving(
        msgspec.structs.replace(workload, machine=machine),
        {"repository": str(root), "grpc_port": 0, **server},
    )


@contextlib.contextmanager
def daemon(workload: Workload, journal: Path) -> Iterator[RunningDaemon]:
    with running_daemon(workload, journal=journal, backend="fake_lane_backend") as running:
        yield running


@contextlib.contextmanager
def client(running: RunningDaemon) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(running.url.removeprefix("http://"), network_timeout=60)
    yield client
    client.close()


def ask(client: object, model: str, first: float = 1, headers: dict[str, str] | None = None) -> int:
    """How many segments the model has: what it adds."""
    module = triton if isinstance(client, triton.InferenceServerClient) else triton_grpc
    x = module.InferInput("x", [1, 2], "FP32")
    x.set_data_from_numpy(np.array([[first, 0]], np.float32))
    answer = client.infer(model, [x], headers=dict(headers or {}))  # type: ignore[attr-defined]
    return round(float(answer.as_numpy("y")[0, 0]) - first)


DEFAULT = parse_workload('[server]\nrepository = "r"\n[[tenant]]\nname = "d"\nqos_ms = 1000')


def test_models_come_and_go(tmp_path: Path) -> None:
    root = tmp_path / "models"
    put(root, "one", 1, 4)
    put(root, "one", 3, 6)
    put(root, "two", 1, 5)
    (root / "empty").mkdir()
    with daemon(on_one_core(DEFAULT, root), tmp_path / "j") as running, client(running) as http:
        assert (ask(http, "one"), ask(http, "two")) == (6, 5)
        index = {(m["name"], m.get("version", "")): m for m in http.get_model_repository_index()}
        assert index["one", "3"]["state"] == "READY"
        assert index["one", "1"]["state"] == "UNAVAILABLE"
        assert http.get_model_metadata("one")["versions"] == ["3"]
        with pytest.raises(InferenceServerException, match="unknown model"):
            http.infer("one", [], model_version="1")
        put(root, "late", 1, 7)
        http.load_model("late")
        config = '{"version_policy": {"all": {}}}'
        http.load_model("one", config=config)
        assert [ask(http, "late"), ask(http, "one")] == [7, 6]
        assert http.is_model_ready("one", "1") and http.is_model_ready("one", "3")
        http.unload_model("two")
        with pytest.raises(InferenceServerException, match="unknown model"):
            ask(http, "two")
        with triton_grpc.InferenceServerClient(running.grpc) as grpc:
            grpc.load_model("two")
            assert ask(grpc, "two") == 5
            with pytest.raises(InferenceServerException, match="no version of it"):
                grpc.load_model("empty")
    assert replay((tmp_path / "j").read_bytes().splitlines(), check=True)


@pytest.mark.parametrize("rounds", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_a_version_is_replaced_under_load(tmp_path: Path, rounds: int) -> None:
    """No request fails, and an answer is that of one version or the other."""
    root = tmp_path / "models"
    put(root, "m", 1, 4, 300)
    stop = threading.Event()
    seen: list[int] = []

    def keep_asking(_: int) -> None:
        with client(running) as http:
            while not stop.is_set():
                seen.append(ask(http, "m"))

    with (
        daemon(on_one_core(DEFAULT, root), tmp_path / "j") as running,
        client(running) as http,
        ThreadPoolExecutor(3) as pool,
    ):
        asking = [pool.submit(keep_asking, number) for number in range(3)]
        try:
            for number in range(rounds):
                segments = 4 + (number + 1) % 2
                put(root, "m", 1, segments, 300)
                http.load_model("m")
                assert ask(http, "m") == segments
        finally:
            stop.set()
        for one in asking:
            one.result()
    assert set(seen) == {4, 5}
    assert len(seen) > rounds
    assert replay((tmp_path / "j").read_bytes().splitlines())


def test_a_load_that_fails_leaves_the_old_version(tmp_path: Path) -> None:
    root = tmp_path / "models"
    put(root, "m", 1, 4)
    with daemon(on_one_core(DEFAULT, root), tmp_path / "j") as running, client(running) as http:
        for micros, said in ((666, "never loads"), (777, "the process that loaded it died")):
            put(root, "m", 2, 5, micros)
            with pytest.raises(InferenceServerException, match=said):
                http.load_model("m")
            assert ask(http, "m") == 4
            index = {m["version"]: m for m in http.get_model_repository_index()}
            assert said in index["2"]["reason"] and index["1"]["state"] == "READY"
        (root / "m" / "2" / MANIFEST).write_text("{")
        with pytest.raises(InferenceServerException, match="manifest is not valid"):
            http.load_model("m")
        put(root, "m", 2, 5)
        http.load_model("m")
        assert ask(http, "m") == 5
        assert all(
            not m.get("reason") for m in http.get_model_repository_index() if m["version"] == "2"
        )


def test_a_broken_model_at_the_start_does_not_keep_others(tmp_path: Path) -> None:
    root = tmp_path / "models"
    put(root, "bad", 1, 4, 777)
    put(root, "good", 1, 4)
    with daemon(on_one_core(DEFAULT, root), tmp_path / "j") as running, client(running) as http:
        assert ask(http, "good") == 4
        index = {m["name"]: m for m in http.get_model_repository_index()}
        assert index["bad"]["state"] == "UNAVAILABLE" and "died" in index["bad"]["reason"]


TENANTS = f"""
[server]
repository = "models"
operator_sha256 = ["{digest(ROOT)}"]
[[tenant]]
name = "alice"
qos_ms = 1000
models = ["ours", "hers"]
token_sha256 = ["{digest(ALICE)}"]
[[tenant]]
name = "bob"
qos_ms = 1000
models = ["ours"]
token_sha256 = ["{digest("other")}", "{digest(BOB)}"]
rate_max = 0.01
burst = 2
"""


def test_tenants_see_and_do_what_they_may(tmp_path: Path) -> None:
    root = tmp_path / "models"
    for name in ("ours", "hers", "nobodys"):
        put(root, name, 1, 4)
    workload = on_one_core(parse_workload(TENANTS), root)

    def bearer(token: str) -> dict[str, str]:
        return {"authorization": f"Bearer {token}"}

    def refused(status: str, act: object) -> None:
        with pytest.raises(InferenceServerException) as error:
            act()  # type: ignore[operator]
        assert str(error.value.status()) == status, error.value
        assert "hers" not in str(error.value) or status != "401"

    with daemon(workload, tmp_path / "j") as running, client(running) as http:
        alice, bob, boss = bearer(ALICE), bearer(BOB), bearer(ROOT)
        assert ask(http, "hers", headers=alice) == ask(http, "ours", headers=alice) == 4
        for headers in (None, bearer("wrong"), {"authorization": ALICE}):
            for name in ("hers", "ours", "none"):
                refused("401", lambda n=name, h=headers: ask(http, n, headers=h))
                refused("401", lambda n=name, h=headers: http.get_model_metadata(n, headers=h))
            refused("401", lambda h=headers: http.get_model_repository_index(headers=h))
        refused("404", lambda: ask(http, "hers", headers=bob))
        refused("404", lambda: ask(http, "none", headers=bob))
        assert [m["name"] for m in http.get_model_repository_index(headers=bob)] == ["ours"]
        stats = http.get_inference_statistics(headers=bob)["model_stats"]
        assert [m["name"] for m in stats] == ["ours"]
        refused("403", lambda: http.load_model("ours", headers=alice))
        refused("403", lambda: http.register_system_shared_memory("r", "/k", 8, headers=alice))
        http.load_model("hers", headers=boss)
        index = {m["name"]: m for m in http.get_model_repository_index(headers=boss)}
        assert "no tenant may call it" in index["nobodys"]["reason"]
        assert [ask(http, "ours", headers=bob) for _ in range(2)] == [4, 4]
        refused("429", lambda: ask(http, "ours", headers=bob))
        assert ask(http, "ours", headers=alice) == 4
        with triton_grpc.InferenceServerClient(running.grpc) as grpc:
            assert grpc.is_server_live()
            assert ask(grpc, "hers", headers=alice) == 4
            refused("StatusCode.UNAUTHENTICATED", lambda: ask(grpc, "hers"))
            refused("StatusCode.NOT_FOUND", lambda: ask(grpc, "hers", headers=bob))
            refused("StatusCode.PERMISSION_DENIED", lambda: grpc.load_model("hers", headers=bob))
