"""The C runtime: parallel loops give the same whoever takes part, and workers end with the pool."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from nets import Net, reference

from tenantdl.bundle.library import Calls, KernelCall, Library
from tenantdl.bundle.load import LoadedBundle, load_bundle
from tenantdl.compile.pipeline import compile_model
from tenantdl.errors import ExecutionError, UserError
from tenantdl.exec import cores
from tenantdl.exec.cores import CoreGroup, group
from tenantdl.exec.runner import Runner
from tenantdl.ids import CoreId

ANYWHERE = CoreId(-1)


@pytest.fixture(scope="module")
def net() -> Net:
    net = Net()
    x = net.input(1, 32, 20, 20)
    for _ in range(6):
        x = net.op("Relu", net.op("Conv", x, net.weight(32, 32, 3, 3), pads=[1] * 4))
    net.output(x)
    return net


@pytest.fixture(scope="module")
def bundle(net: Net, tmp_path_factory: pytest.TempPathFactory) -> LoadedBundle:
    path = tmp_path_factory.mktemp("bundles") / "net"
    compile_model(net.model(), path)
    return load_bundle(path)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_any_number_of_threads(
    net: Net, bundle: LoadedBundle, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More threads than cores, many launches in a row: chunks are neither lost nor run twice."""
    monkeypatch.setattr(cores._local, "group", CoreGroup([ANYWHERE] * threads))
    runner = Runner(bundle)
    first = runner.run(net.inputs)
    for name, expected in reference(net).items():
        np.testing.assert_allclose(first[name], expected, rtol=1e-4, atol=1e-5)
        for _ in range(50):
            np.testing.assert_array_equal(runner.run(net.inputs)[name], first[name])


def test_a_group_grows_and_shrinks_between_blocks(
    net: Net, bundle: LoadedBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of one request on ever different groups; only workers that are needed are started."""
    places = [CoreId(-1 - place) for place in range(5)]  # told apart, and pinned to none
    made = CoreGroup(places)
    monkeypatch.setattr(cores._local, "group", made)
    runner = Runner(bundle)
    before = _threads()
    started: set[CoreId] = set()
    for chosen in ([0], [0, 2], [4, 0], [0], [0, 2, 4], [0, 1, 2, 3, 4]):
        made.choose([places[place] for place in chosen])
        started |= {places[place] for place in chosen if place}
        outputs = runner.run(net.inputs)
        for name, expected in reference(net).items():
            np.testing.assert_allclose(outputs[name], expected, rtol=1e-4, atol=1e-5)
        made.rest()
        assert _threads() == before + len(started)
    with pytest.raises(ExecutionError, match="on the first of"):
        made.choose(places[1:])
    monkeypatch.undo()
    del made
    assert _threads() == before


def test_libraries_share_a_pool(net: Net, bundle: LoadedBundle, tmp_path: Path) -> None:
    """The pool that one library made runs another's loops."""
    compile_model(net.model(), tmp_path / "other")
    other = load_bundle(tmp_path / "other")
    expected = Runner(bundle).run(net.inputs)
    made = group().pool(bundle.library)
    assert group().pool(other.library) is made
    for name, value in Runner(other).run(net.inputs).items():
        np.testing.assert_array_equal(value, expected[name])


def test_every_thread_has_a_group_of_its_own() -> None:
    groups = [group()]
    thread = threading.Thread(target=lambda: groups.append(group()))
    thread.start()
    thread.join()
    assert groups[0] is group()
    assert groups[1] is not groups[0]


def test_a_failing_kernel_is_an_error(bundle: LoadedBundle) -> None:
    """Kernels check their arguments: a wrong shape is caught, not computed with."""
    call = bundle.manifest.plans[0].calls[1]
    arrays = [np.zeros(64, np.float32) for _ in call.args]
    with pytest.raises(ExecutionError, match=r"Error: .*(shape|ndim|dim)"):
        Calls(bundle.library, [KernelCall(call.symbol, arrays)]).run(0, 1)


def test_not_a_kernel_library(tmp_path: Path, bundle: LoadedBundle) -> None:
    with pytest.raises(UserError, match="kernel nonsense is not in the library"):
        Calls(bundle.library, [KernelCall("nonsense", [])])
    (tmp_path / "x.so").write_bytes(b"\x7fELF")
    with pytest.raises(UserError, match="cannot be loaded"):
        Library(tmp_path / "x.so")


def _threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))
