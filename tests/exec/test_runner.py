"""Runner: inputs are checked, blocks add up to the whole, arenas do not share state."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from nets import Net, reference

from tenantdl.bundle.load import LoadedBundle, load_bundle
from tenantdl.bundle.manifest import Substitute, Variant
from tenantdl.compile import segment as cutting
from tenantdl.compile.pipeline import compile_model
from tenantdl.errors import UserError
from tenantdl.exec import cores
from tenantdl.exec.cores import CoreGroup
from tenantdl.exec.runner import Runner
from tenantdl.ids import CoreId


@pytest.fixture(scope="module")
def net() -> Net:
    net = Net()
    x = net.input(2, 16, 9, 9)
    for _ in range(3):
        x = net.op(
            "Relu", net.op("Conv", x, net.weight(32, 16 if _ == 0 else 32, 3, 3), pads=[1] * 4)
        )
    net.output(net.op("GlobalAveragePool", x))
    return net


@pytest.fixture(scope="module")
def bundle(net: Net, tmp_path_factory: pytest.TempPathFactory) -> LoadedBundle:
    path = tmp_path_factory.mktemp("bundles") / "net"
    compile_model(net.model(), path)
    return load_bundle(path)


def test_interleaved_runners(net: Net, bundle: LoadedBundle) -> None:
    """Two requests parked at every block boundary in turn give what each gives alone."""
    runners = [Runner(bundle), Runner(bundle)]
    name = next(iter(net.inputs))
    inputs = [net.inputs[name], -net.inputs[name]]
    for runner, value in zip(runners, inputs, strict=True):
        runner.set_inputs({name: value})
    for segment in range(runners[0].segment_count):
        for runner in runners:
            runner.run_block(segment, segment + 1)
    for runner, value in zip(runners, inputs, strict=True):
        net.inputs[name] = value
        for output, expected in reference(net).items():
            np.testing.assert_allclose(runner.outputs()[output], expected, rtol=1e-5, atol=1e-6)


def test_operators_in_parts(net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every loop in as many parts as it has pairs of iterations, each on another group of cores."""
    monkeypatch.setattr(cutting, "_LONG_NS", 0)
    monkeypatch.setattr(cutting, "_PART_NS", 1)
    compile_model(net.model(), tmp_path / "net")
    parts = load_bundle(tmp_path / "net")
    assert max(part.parts for part in parts.manifest.plans[0].segments) >= 4
    group = CoreGroup([CoreId(-1), CoreId(-2), CoreId(-3)])  # told apart, and pinned to none
    monkeypatch.setattr(cores._local, "group", group)
    runner = Runner(parts)
    runner.set_inputs(net.inputs)
    for number in range(runner.segment_count):
        group.choose(group.cores[: 1 + number % 3])
        runner.run_block(number, number + 1)
    for output, expected in reference(net).items():
        np.testing.assert_allclose(runner.outputs()[output], expected, rtol=1e-5, atol=1e-6)
    assert len(runner.time_ns()) == len(parts.manifest.plans[0].calls)


def test_runs_again_after_other_inputs(net: Net, bundle: LoadedBundle) -> None:
    """Nothing is left behind in the arena: borders stay zero."""
    runner = Runner(bundle)
    name, value = next(iter(net.inputs.items()))
    first = runner.run({name: value})
    runner.run({name: np.full_like(value, 1e3)})
    again = runner.run({name: value})
    for output, array in first.items():
        np.testing.assert_array_equal(array, again[output])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: {}, "'x0' is missing"),
        (lambda x: {"x0": x, "y": x}, "unknown input 'y'"),
        (lambda x: {"x0": x[:1]}, r"shape \[1, 16, 9, 9\], needs \[2, 16, 9, 9\]"),
        (lambda x: {"x0": x.astype(np.float64)}, "dtype float64, needs float32"),
    ],
)
def test_bad_inputs(net: Net, bundle: LoadedBundle, change: object, message: str) -> None:
    assert callable(change)
    with pytest.raises(UserError, match=message):
        Runner(bundle).run(change(net.inputs["x0"]))


def test_variants_replace_calls_where_they_say(net: Net, bundle: LoadedBundle) -> None:
    """A variant whose first call is left out of its segment's work (another's in its place) gives
    another result; the variant without substitutes gives the plan's."""
    plan = bundle.manifest.plans[0]
    figures = (tuple(1 for _ in plan.segments),)

    def variant(*substitutes: Substitute) -> Variant:
        return Variant("x", substitutes, (1,), figures, (), figures[0], figures[0])

    doubled = plan.calls[-2]
    varied = msgspec.structs.replace(
        plan, variants=(variant(), variant(Substitute(len(plan.calls) - 1, doubled)))
    )
    runner, name = Runner(bundle, varied), next(iter(net.inputs))
    expected = next(iter(Runner(bundle).run(net.inputs).values()))
    runner.set_inputs(net.inputs)
    runner.run_block(0, runner.segment_count, 1)
    assert not runner.outputs()[net.outputs[0]].any()  # nobody wrote the output
    runner.set_inputs({name: net.inputs[name]})
    runner.run_block(0, runner.segment_count, 0)
    np.testing.assert_array_equal(runner.outputs()[net.outputs[0]], expected)
