"""Messages that are known by their bytes mean what they say."""

from __future__ import annotations

import random

import numpy as np
from tritonclient.grpc import service_pb2 as pb

from tenantdl.daemon.protocol.grpc_asked import Asked, Requests
from tenantdl.daemon.protocol.grpc_infer import _head
from tenantdl.daemon.protocol.grpc_messages import parse_infer
from tenantdl.daemon.protocol.refusals import ProtocolError
from tests.daemon.fake_service import FakeEngine
from tests.daemon.test_fuzz import grpc_payload


def request(raw: list[bytes], **more: str) -> memoryview:
    message = pb.ModelInferRequest(model_name="m", **more)
    for number, each in enumerate(raw):
        message.inputs.add(name=f"x{number}", datatype="UINT8", shape=[len(each)])
        message.raw_input_contents.append(each)
    return memoryview(message.SerializeToString())


def read(requests: Requests, message: bytes) -> tuple[Asked, list[bytes]] | None:
    try:
        asked, raw = requests.read(memoryview(message))
    except ProtocolError:
        return None
    return asked, [bytes(each) for each in raw]


def test_the_same_with_other_tensors_is_taken_apart_once() -> None:
    requests = Requests()
    first, raw = requests.read(request([b"abc", b"de"]))
    again, other = requests.read(request([b"ABC", b"DE"]))
    assert again is first
    assert [bytes(each) for each in (*raw, *other)] == [b"abc", b"de", b"ABC", b"DE"]
    assert [given.name for given in first.inputs] == ["x0", "x1"]
    # As long, but not the same.
    for message in (request([b"ab", b"cde"]), request([b"abc"], id="12345")):
        assert requests.read(message)[0] is not first
    assert requests.read(request([b"abc", b"de"], id="1"))[0].number == "1"


def test_nonsense_reads_as_it_would_for_the_first_time() -> None:
    rng, requests = random.Random(5), Requests()
    known: list[bytes] = []
    for _ in range(1500):
        message = bytearray(grpc_payload(rng))
        if known and rng.random() < 0.6:  # one that is known, or nearly
            message = bytearray(rng.choice(known))
            if message and rng.random() < 0.5:
                message[rng.randrange(len(message))] = rng.randrange(256)
        known = [*known[-20:], bytes(message)]
        found, fresh = read(requests, message), read(Requests(), message)
        assert (found is None) == (fresh is None)
        if found and fresh:
            assert found[1] == fresh[1] == [bytes(r) for r in parse_infer(memoryview(message))[1]]
            assert repr(found[0]) == repr(fresh[0])


def test_what_is_remembered_is_bounded() -> None:
    requests = Requests()
    for number in range(1000):
        requests.read(request([b"x"], id=str(number)))
    requests.read(request([b"x"], id="y" * 100_000))
    forms = [form for same in requests._forms.values() for form in same]
    assert len(forms) <= 64
    assert sum(len(part) for form in forms for _, _, part in form.rest) < 64 * 4096


def test_the_beginning_of_an_answer_says_what_its_outputs_are_like() -> None:
    (asked, _), model = (
        Requests().read(request([b"abc"], id="7")),
        FakeEngine({}).catalogue.find("add"),
    )
    assert model is not None
    for shape in ((2, 3), (3, 2), (2, 3)):
        outputs = {"y": np.zeros(shape, np.float32)}
        answer = pb.ModelInferResponse.FromString(_head(asked, model, outputs, final=False))
        assert list(answer.outputs[0].shape) == list(shape)
        assert answer.id == "7"
    last = pb.ModelInferResponse.FromString(_head(asked, model, outputs, final=True))
    assert last.parameters["triton_final_response"].bool_param
