"""Real bundles in shared arenas: two processes' worth of runners, one set of activations."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from nets import Net, reference

from tenantdl.bundle.load import read_manifest
from tenantdl.compile.pipeline import compile_model
from tenantdl.errors import UserError
from tenantdl.exec import lane_backend
from tenantdl.exec.lane_memory import Mapping, Slots, lay_out


@pytest.fixture(scope="module")
def net() -> Net:
    net = Net()
    x = net.input(1, 8, 12, 12)
    for _ in range(4):
        x = net.op("Relu", net.op("Conv", x, net.weight(8, 8, 3, 3), pads=[1] * 4))
    net.output(x)
    return net


@pytest.fixture(scope="module")
def bundle(net: Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "net"
    compile_model(net.model(), path)
    return path


def test_a_request_goes_on_in_another_lanes_runner(net: Net, bundle: Path) -> None:
    """Arena in shared memory, mapped twice: every segment runs through another mapping."""
    layout = lay_out(str(bundle), read_manifest(bundle).plans, slots=2, arenas=2)
    shared = Mapping.create("arenas", layout.arenas_bytes)
    (program,) = layout.programs
    lanes = []
    for _ in range(2):
        memory = memoryview(Mapping(shared.fd, layout.arenas_bytes).memory)
        arenas = [memory[at : at + program.arena_bytes] for at in program.arena_offsets]
        ((first, second),) = lane_backend.open_programs(str(bundle), [(0, arenas)])
        lanes.append((first, second))
    shared.close()
    (name, value), *_ = net.inputs.items()
    lanes[0][0].set_inputs({name: value})
    lanes[0][1].set_inputs({name: -value})
    for segment in range(lanes[0][0].segment_count):
        for arena in (0, 1):
            lanes[(segment + arena) % 2][arena].run_block(segment, segment + 1)
    for arena, sign in ((0, 1), (1, -1)):
        net.inputs[name] = sign * value
        for output, expected in reference(net).items():
            for lane in lanes:
                got = lane[arena].outputs()[output]
                np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    net.inputs[name] = value


def test_pinning_keeps_the_process_on_its_core() -> None:
    before = os.sched_getaffinity(0)
    core = min(before)
    try:
        lane_backend.pin([core])
        assert os.sched_getaffinity(0) == {core}
    finally:
        os.sched_setaffinity(0, before)


def test_a_damaged_bundle_is_found_before_lanes_start(bundle: Path) -> None:
    lane_backend.open_programs(str(bundle), [])
    weights = bundle / "weights.bin"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    try:
        with pytest.raises(UserError, match="digest"):
            lane_backend.open_programs(str(bundle), [])
    finally:
        weights.write_bytes(good)


def test_slots_hold_inputs_and_outputs_of_every_plan_apart(bundle: Path) -> None:
    layout = lay_out(str(bundle), read_manifest(bundle).plans, slots=3, arenas=1)
    memory = Mapping.create("slots", layout.slots_bytes)
    mine, theirs = Slots(layout, memory.memory), Slots(layout, memory.memory)
    (name,) = mine.inputs(0, 0)
    for slot in range(3):
        shape = mine.inputs(slot, 0)[name].shape
        mine.write(slot, 0, {name: np.full(shape, slot, np.float32)})
        mine.set_progress(slot, 7 + slot)
        for view in theirs.outputs(slot, 0).values():
            view[...] = 100 + slot
    for slot in range(3):
        assert np.all(theirs.inputs(slot, 0)[name] == slot)
        assert theirs.progress(slot) == 7 + slot
        assert all(np.all(view == 100 + slot) for view in mine.outputs(slot, 0).values())
    memory.close()
