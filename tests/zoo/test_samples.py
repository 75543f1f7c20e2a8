"""Sample inputs fit their models and look like real requests."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantdl import zoo
from tenantdl.errors import UserError


@pytest.mark.parametrize("name", zoo.names())
def test_samples_fit_the_listed_inputs(name) -> None:
    entry = zoo.entry(name)
    batch = 1 if entry.batch else 3
    samples = zoo.sample_inputs(name, batch, seed=1)
    assert set(samples) == {port.name for port in entry.inputs}
    for port in entry.inputs:
        value = samples[port.name]
        assert value.dtype == port.dtype
        assert len(value.shape) == len(port.shape)
        for actual, listed in zip(value.shape, port.shape, strict=True):
            assert actual == (batch if listed == "N" else listed) or listed in {"S", "H", "W"}
        if port.fixed is not None:
            assert value == port.fixed


@pytest.mark.parametrize("name", zoo.names())
def test_samples_repeat_with_the_seed_and_differ_without(name) -> None:
    first, again, other = (zoo.sample_inputs(name, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert any(not np.array_equal(first[key], other[key]) for key in first)


def test_requests_of_a_batch_differ() -> None:
    for name in ("resnet50", "minilm_l6", "ppocr_rec", "magika", "silero_vad_ifless"):
        first = next(iter(zoo.sample_inputs(name, 2).values()))
        assert not np.array_equal(first[0], first[1])


@given(batch=st.integers(1, 6), size=st.integers(2, 64), seed=st.integers(0, 99))
def test_tokens_are_framed_and_padded(batch: int, size: int, seed: int) -> None:
    samples = zoo.sample_inputs("bert_large", batch, seed, size=size)
    ids, mask = samples["input_ids"], samples["attention_mask"]
    lengths = mask.sum(axis=1)
    assert (np.diff(mask, axis=1) <= 0).all()  # padding only at the end
    assert lengths[0] == size and (lengths >= size // 2).all()
    assert (ids[:, 0] == 101).all()
    assert (ids[np.arange(batch), lengths - 1] == 102).all()
    assert (ids[mask == 0] == 0).all() and ids.max() < 30_522


@pytest.mark.parametrize(
    ("name", "batch", "size"),
    [
        ("resnet50", 0, None),
        ("resnet50", 1, 128),
        ("light_vgg19", 2, None),
        ("silero_vad_sequence", 2, None),
        ("ppocr_det", 1, 100),
        ("bert_large", 1, 513),
        ("bert_large", 1, 1),
        ("ppocr_rec", 1, 1 << 20),
    ],
)
def test_impossible_requests_are_refused(name, batch, size) -> None:
    with pytest.raises(UserError, match=name):
        zoo.sample_inputs(name, batch, size=size)


def test_pictures_are_normalised() -> None:
    pixels = zoo.sample_inputs("resnet50", 4)["image"]
    assert abs(pixels.mean()) < 0.5
    assert 0.7 < pixels.std() < 1.4


def test_speech_is_sound_within_range() -> None:
    windows = zoo.sample_inputs("silero_vad_sequence", size=8)["input"]
    assert windows.shape == (8, 576)
    assert np.abs(windows).max() <= 1
    np.testing.assert_array_equal(windows[1:, :64], windows[:-1, 512:])
