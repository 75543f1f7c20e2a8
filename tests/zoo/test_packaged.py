"""Real models understand the sample inputs: text is read, speech heard, sentences compared."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx
import pytest

from tenantdl import zoo
from tenantdl.errors import UserError
from tenantdl.zoo import signals
from tenantdl.zoo.sources import MINILM_WEIGHTS


def test_recognition_reads_the_printed_digits(run, packaged) -> None:
    file = packaged("ppocr_rec")
    text = "2718281828"
    line = signals.printed(np.random.default_rng(0), 48, 320, np.array([int(c) for c in text]))
    (scores,) = run(file, {"x": 2 * line[None] - 1}).values()
    best = scores[0].argmax(axis=1)
    metadata = {item.key: item.value for item in onnx.load(file).metadata_props}
    characters = ["", *metadata["character"].split("\n")]
    kept = [now for now, before in zip(best, [0, *best], strict=False) if now != before]
    assert "".join(characters[index] for index in kept) == text


def test_detection_finds_the_lines(run, packaged) -> None:
    page = zoo.sample_inputs("ppocr_det", size=320)
    (probability,) = run(packaged("ppocr_det"), page).values()
    rows = (probability[0, 0] > 0.5).mean(axis=1)
    text = np.arange(320 // 16, 320 - 48, 320 // 5) + 24
    assert (rows[text] > 0.7).all()
    assert (rows[text + 32] < 0.1).all()


def test_direction_gives_two_shares(run, packaged) -> None:
    (shares,) = run(packaged("ppocr_cls"), zoo.sample_inputs("ppocr_cls", 2)).values()
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-4)
    assert shares.std() > 0


def test_voice_activity_tells_speech_from_silence(run, packaged) -> None:
    file, speech = packaged("silero_vad_sequence"), zoo.sample_inputs("silero_vad_sequence")
    heard = run(file, speech)["speech_probs"]
    silence = run(file, {**speech, "input": np.zeros_like(speech["input"])})["speech_probs"]
    assert heard.mean() > 0.6
    assert silence.max() < 0.3


def test_voice_activity_steps_in_batches(run, packaged) -> None:
    step = zoo.sample_inputs("silero_vad_ifless", 3)
    outputs = run(packaged("silero_vad_ifless"), step)
    assert outputs["output"].shape == (3, 1) and outputs["stateN"].shape == (2, 3, 128)
    assert outputs["output"].std() > 0


def test_file_types_are_told(run, packaged) -> None:
    file = packaged("magika")
    labels = json.loads((file.parent / "config.min.json").read_text())["target_labels_space"]
    (shares,) = run(file, zoo.sample_inputs("magika", 3)).values()
    assert [labels[index] for index in shares.argmax(axis=1)] == ["python"] * 3


@pytest.fixture(scope="module")
def minilm() -> onnx.ModelProto:
    try:
        return zoo.build("minilm_l6")
    except UserError as error:
        pytest.skip(str(error))


def tokens(sentences: list[str], size: int) -> dict[str, np.ndarray]:
    """Greedy WordPiece over the packaged vocabulary: enough for plain lower-case English."""
    lines = MINILM_WEIGHTS.path().with_name("vocab.txt").read_text(encoding="utf-8").splitlines()
    ids = {word: index for index, word in enumerate(lines)}
    rows = np.zeros((len(sentences), size), dtype=np.int64)
    for row, sentence in zip(rows, sentences, strict=True):
        pieces = ["[CLS]"]
        for word in re.findall(r"\w+|[^\w\s]", sentence.lower()):
            mark = ""
            while word:
                end = next(e for e in range(len(word), 0, -1) if mark + word[:e] in ids)
                pieces.append(mark + word[:end])
                word, mark = word[end:], "##"
        row[: len(pieces) + 1] = [ids[piece] for piece in [*pieces, "[SEP]"]]
    mask = (rows > 0).astype(np.int64)
    return {"input_ids": rows, "attention_mask": mask, "token_type_ids": np.zeros_like(rows)}


def test_similar_sentences_are_closer(minilm, run) -> None:
    sentences = [
        "A man is playing a guitar on stage.",
        "Someone performs music with an instrument.",
        "The stock market fell sharply yesterday.",
        "Share prices dropped a lot the day before.",
    ]
    embeddings = run(minilm, tokens(sentences, 20))["sentence_embedding"]
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    closeness = embeddings @ embeddings.T
    pairs = min(closeness[0, 1], closeness[2, 3])
    assert pairs > 0.4
    assert pairs > closeness[:2, 2:].max() + 0.2


def test_padding_does_not_change_a_sentence(minilm, run) -> None:
    short, long = (run(minilm, tokens(["hello world"], size)) for size in (4, 32))
    np.testing.assert_allclose(short["sentence_embedding"], long["sentence_embedding"], atol=1e-5)
    np.testing.assert_allclose(
        short["last_hidden_state"], long["last_hidden_state"][:, :4], atol=1e-4
    )


def test_minilm_is_valid_onnx(minilm) -> None:
    onnx.checker.check_model(minilm, full_check=True)
    shapes = {value.name: value.type.tensor_type.shape.dim for value in minilm.graph.output}
    hidden = [dim.dim_param or dim.dim_value for dim in shapes["last_hidden_state"]]
    assert hidden == ["N", "S", 384]
