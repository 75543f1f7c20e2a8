"""Catalogue, journal writer, and a compiled bundle served from end to end."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from nets import Net, reference

from tenantdl.compile.pipeline import compile_model
from tenantdl.daemon import running_daemon
from tenantdl.daemon.catalogue import open_catalogue, open_model, scheduler_config
from tenantdl.daemon.engine import Engine
from tenantdl.daemon.journal import JournalWriter
from tenantdl.errors import UserError
from tenantdl.ids import CoreId, LaneId, ModelId, TenantId
from tenantdl.load.workload import parse_workload
from tenantdl.machine import usable_cores
from tenantdl.sched.config import LaneSpec, one_core_plan
from tenantdl.sched.journal import read
from tenantdl.sched.messages import Tick
from tenantdl.units import Ns
from tests.exec.fake_lane_backend import fake_bundle

TENANT = '[[tenant]]\nname = "{name}"\nbundle = "{bundle}"\nqos_ms = 50\n'


def test_tenants_of_one_model_share_it(tmp_path: Path) -> None:
    a = fake_bundle(tmp_path, "m", 4, 0, plans=2)
    b = fake_bundle(tmp_path, "n", 5, 10)
    text = "".join(
        TENANT.format(name=name, bundle=bundle) for name, bundle in (("x", a), ("y", b), ("z", a))
    )
    workload = parse_workload(text + 'queue_max = 3\narenas = 2\nmodel = "m"\n')
    catalogue = open_catalogue(workload)
    assert {m.name: m.tenants for m in catalogue.models.values()} == {"m": ("x", "z"), "n": ("y",)}
    layout = catalogue.layout(catalogue.models[ModelId("m")])
    assert (layout.slots, len(layout.programs[0].arena_offsets)) == (64 + 3, 4 + 2)
    config = scheduler_config(workload, catalogue, [LaneSpec(LaneId(0), (CoreId(0),))])
    assert [(t.tenant, t.queue_max, t.arenas) for t in config.tenants] == [
        ("x", 64, 4),
        ("y", 64, 4),
        ("z", 3, 2),
    ]
    assert [m.plans for m in config.models] == [
        (one_core_plan((1000,) * 4),) * 2,
        (one_core_plan((10_000,) * 5),),
    ]


def test_two_bundles_under_one_name_are_refused(tmp_path: Path) -> None:
    a, b = fake_bundle(tmp_path, "m", 4, 0), fake_bundle(tmp_path, "m", 5, 0)
    text = TENANT.format(name="x", bundle=a) + TENANT.format(name="y", bundle=b)
    with pytest.raises(UserError, match=r"model m is served from .* already"):
        open_catalogue(parse_workload(text))
    open_catalogue(parse_workload(text + 'model = "m2"\n'))


def test_the_newest_version_is_found_as_versions_come_and_go(tmp_path: Path) -> None:
    bundle = fake_bundle(tmp_path, "m", 4, 0)
    catalogue = open_catalogue(parse_workload(TENANT.format(name="x", bundle=bundle)))
    first = catalogue.find("m")
    assert first is not None and catalogue.find("m", "2") is None
    second = open_model(ModelId("m#2"), "m", bundle, [TenantId("x")], "2")
    catalogue.add(second)
    assert [catalogue.find("m"), catalogue.find("m", "1")] == [second, first]
    assert catalogue.find("m", "2") is second
    catalogue.remove(second)
    catalogue.remove(second)
    assert catalogue.find("m") is first and catalogue.find("m", "2") is None


def test_a_tenant_calls_several_models(tmp_path: Path) -> None:
    models = {name: fake_bundle(tmp_path, "m", 4, 10 * i) for i, name in enumerate("abc")}
    text = "".join(f'[[model]]\nname = "{n}"\nbundle = "{b}"\n' for n, b in models.items())
    text += '[[tenant]]\nname = "x"\nqos_ms = 5\nmodels = ["b", "a"]\n'
    text += '[[tenant]]\nname = "y"\nqos_ms = 5\nmodels = ["a"]\n'
    workload = parse_workload(text)
    catalogue = open_catalogue(workload)
    assert {m.name: m.tenants for m in catalogue.models.values()} == {
        "a": ("x", "y"),
        "b": ("x",),
    }
    config = scheduler_config(workload, catalogue, [LaneSpec(LaneId(0), (CoreId(0),))])
    assert [tenant.model for tenant in config.tenants] == ["b", "a"]
    with pytest.raises(UserError, match=r"tenant\[0\].models\[0\]: 'd' is unknown"):
        parse_workload(text.replace('"b", "a"', '"d"'))
    with pytest.raises(UserError, match=r"tenant\[0\]: give bundle or models"):
        parse_workload(text.replace('models = ["b", "a"]', ""))


def test_a_core_that_is_not_there_is_a_user_error(tmp_path: Path) -> None:
    bundle = fake_bundle(tmp_path, "m", 4, 0)
    text = "[machine]\ncores = [4095]\n" + TENANT.format(name="x", bundle=bundle)
    workload = parse_workload(text)
    with pytest.raises(UserError, match="core 4095 is not usable"):
        Engine(workload, open_catalogue(workload))


def test_the_journal_stays_within_its_bound(tmp_path: Path) -> None:
    bundle = fake_bundle(tmp_path, "m", 4, 0)
    workload = parse_workload(TENANT.format(name="x", bundle=bundle))
    lane = LaneSpec(LaneId(0), (CoreId(0),))
    config = scheduler_config(workload, open_catalogue(workload), [lane])
    writer = JournalWriter(tmp_path / "deep" / "j", config, 100_000)
    for now in range(20_000):
        writer.write(Ns(now), Tick(), [])
    writer.close()
    writer.close()
    lines = (tmp_path / "deep" / "j").read_bytes().splitlines()
    assert 90_000 < (tmp_path / "deep" / "j").stat().st_size < 101_000
    assert [entry.now for entry in read(lines)[1]] == list(range(len(lines) - 1))


def test_a_journal_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    bundle = fake_bundle(tmp_path, "m", 4, 0)
    workload = parse_workload(TENANT.format(name="x", bundle=bundle))
    with pytest.raises(UserError, match="cannot be written"):
        Engine(workload, open_catalogue(workload), journal=bundle)


def test_a_compiled_bundle_is_served(tmp_path: Path) -> None:
    """Real kernels in real lanes under two tenants, with answers as onnxruntime gives them."""
    net = Net()
    x = net.input(1, 8, 10, 10)
    for _ in range(3):
        x = net.op("Relu", net.op("Conv", x, net.weight(8, 8, 3, 3), pads=[1] * 4))
    net.output(x)
    compile_model(net.model(), tmp_path / "net.bundle", name="net")
    core = usable_cores()[0]
    text = f'bundles = "{tmp_path}"\n[machine]\ncores = [{core}]\n'
    for name in ("x", "y"):
        text += TENANT.format(name=name, bundle="net.bundle").replace("50", "60000")
    ((name, value),) = net.inputs.items()
    net.inputs[name] = value
    expected = reference(net)
    wrong: list[str] = []

    def ask(url: str, tenant: str) -> None:
        client = triton.InferenceServerClient(url.removeprefix("http://"))
        for _ in range(10):
            given = triton.InferInput(name, list(value.shape), "FP32")
            given.set_data_from_numpy(value)
            answer = client.infer("net", [given], parameters={"tenant": tenant})
            for output, array in expected.items():
                if not np.allclose(answer.as_numpy(output), array, rtol=1e-4, atol=1e-5):
                    wrong.append(f"{tenant}: {output}")
        client.close()
        wrong.append("")

    with running_daemon(parse_workload(text)) as daemon:
        threads = [threading.Thread(target=ask, args=(daemon.url, t)) for t in "xyxy"]
        for thread in threads:
            thread.start()
            time.sleep(0.01)
        for thread in threads:
            thread.join()
    assert wrong == [""] * 4
