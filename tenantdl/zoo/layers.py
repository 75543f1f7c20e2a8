"""A small writer of ONNX graphs: layers in exporters' style, weights seeded, batch dynamic.

Why weights are scaled as they are: a network with plain random weights explodes or dies within
twenty layers, and then wrong kernels go unnoticed. So the expected standard deviation of every
value is tracked, and each layer divides it out of its weights, as the batch norms that exporters
fold into the convolutions do; filters behind an activation have zero mean (scaled weight
standardisation, Brock et al., arXiv:2101.08692), so that outputs keep depending on inputs.

Weights go straight into the model's protobuf: BERT-large's 1.3 GB are never held twice.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

Array = NDArray[Any]

OPSET = 18
IR_VERSION = 8
BATCH = "N"

_POOLED_STD = 0.6  # of a global average, relative to the map: what differs between channels
_DEPTHWISE_NOISE = 0.5  # of a depthwise filter; the rest is its middle tap, as in trained ones
_SKEW = 1.5  # behind one activation values are skewed, so that a second one lets more through
_GATE = 0.5  # what a sigmoid gate lets through


def filters(rng: np.random.Generator, shape: Sequence[int], std: float, *, centred: bool) -> Array:
    """Weights [out, in, ...], float32, that turn inputs of deviation `std` into unit variance.

    `centred`: each filter sums to zero, so that a mean common to all inputs does not pass.
    """
    values = rng.standard_normal(tuple(shape), dtype=np.float32)
    if centred:
        values -= values.mean(axis=tuple(range(1, len(shape))), keepdims=True)
    values *= np.float32(1.0 / (std * math.sqrt(math.prod(shape[1:]))))
    return values


def moments(f: Callable[[Array], Array], mean: float, std: float) -> tuple[float, float]:
    """Mean and standard deviation of f(x) for x ~ Normal(mean, std²), by Gauss-Hermite."""
    points, weights = np.polynomial.hermite_e.hermegauss(63)
    values, weights = f(mean + std * points), weights / weights.sum()
    first = float(weights @ values)
    return first, math.sqrt(float(weights @ (values - first) ** 2))


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return np.maximum(x, 0)


class Net:
    """One ONNX graph under construction. Values are named by strings, as in ONNX itself.

    `prefix` starts the names of nodes and weights; layers take their input's channels from
    `channels`. Weights are drawn in the order of the calls: equal seeds give equal models.
    """

    def __init__(self, name: str, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.prefix = ""
        self.inputs: list[str] = []
        self.channels: dict[str, int] = {}
        self.mean: defaultdict[str, float] = defaultdict(float)
        self.std: dict[str, float] = {}
        self._names: set[str] = set()
        self.model = onnx.ModelProto(ir_version=IR_VERSION, producer_name="tenantdl.zoo")
        self.model.opset_import.add().version = OPSET
        self.model.graph.name = name

    def input(self, name: str, shape: Sequence[int | str], dtype: int = TensorProto.FLOAT) -> str:
        """A graph input of `shape` (names are symbolic dimensions); floats have unit variance."""
        self.model.graph.input.append(helper.make_tensor_value_info(name, dtype, shape))
        self.inputs.append(name)
        self.std[name] = 1.0
        if len(shape) == 4 and isinstance(shape[1], int):
            self.channels[name] = shape[1]
        return name

    def output(self, value: str, name: str, shape: Sequence[int | str]) -> None:
        """Publish a float32 `value` as the graph output `name`."""
        self.op("Identity", value, output=name)
        self.model.graph.output.append(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        )

    def constant(self, name: str, array: Array) -> str:
        """An initializer under the current prefix."""
        name = self._unique(f"{self.prefix}{name}")
        tensor = self.model.graph.initializer.add()
        tensor.name = name
        tensor.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor.dims.extend(array.shape)
        tensor.raw_data = array.tobytes()
        return name

    def op(self, kind: str, *inputs: str, output: str | None = None, **attrs: Any) -> str:
        """Append one node with one output; returns the output's name."""
        label = self._unique("/" + f"{self.prefix}{kind}".replace(".", "/"))
        output = output or f"{label}_output_0"
        self.model.graph.node.append(helper.make_node(kind, inputs, [output], label, **attrs))
        if inputs and inputs[0] in self.std:
            self.std[output] = self.std[inputs[0]]
            self.mean[output] = self.mean[inputs[0]]
        if inputs and inputs[0] in self.channels:
            self.channels[output] = self.channels[inputs[0]]
        return output

    def normal(self, shape: Sequence[int], std: float) -> Array:
        """float32 samples of Normal(0, std²)."""
        values = self.rng.standard_normal(tuple(shape), dtype=np.float32)
        values *= np.float32(std)
        return values

    def conv(
        self,
        x: str,
        channels: int,
        kernel: int,
        name: str,
        *,
        stride: int = 1,
        groups: int = 1,
        pad: int | None = None,
        gain: float = 1.0,
    ) -> str:
        """Convolution with bias, batch norm folded in: x [N,C,H,W] → [N,`channels`,H',W'].

        `pad` is symmetric; None keeps the size at stride 1 (odd kernels). `gain` is the output's
        deviation.
        """
        pad = kernel // 2 if pad is None else pad
        shape = (channels, self.channels[x] // groups, kernel, kernel)
        centred = groups == 1 and x not in self.inputs  # inputs have zero mean already
        weight = filters(self.rng, shape, self.std[x] / gain, centred=centred)
        mean = 0.0
        if groups == channels:
            middle = math.sqrt(1 - _DEPTHWISE_NOISE**2) * gain / self.std[x]
            weight *= np.float32(_DEPTHWISE_NOISE)
            weight[:, :, kernel // 2, kernel // 2] += np.float32(middle)
            mean = middle * self.mean[x]
            gain *= _SKEW
        y = self.op(
            "Conv",
            x,
            self.constant(f"{name}.weight", weight),
            self.constant(f"{name}.bias", self.normal((channels,), 0.1)),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad] * 4,
            group=groups,
            dilations=[1, 1],
        )
        self.channels[y], self.mean[y], self.std[y] = channels, mean, gain
        return y

    def dense(self, x: str, width: int, name: str) -> str:
        """Fully connected layer as Gemm: x [N,C] → [N,`width`]."""
        weight = filters(self.rng, (width, self.channels[x]), self.std[x], centred=True)
        bias = self.constant(f"{name}.bias", self.normal((width,), 0.1))
        y = self.op("Gemm", x, self.constant(f"{name}.weight", weight), bias, transB=1)
        self.channels[y], self.mean[y], self.std[y] = width, 0.0, 1.0
        return y

    def relu(self, x: str) -> str:
        """max(x, 0)."""
        return self._activated(x, self.op("Relu", x), relu)

    def leaky_relu(self, x: str, alpha: float) -> str:
        """x where it is positive, `alpha` · x elsewhere."""
        y = self.op("LeakyRelu", x, alpha=alpha)
        return self._activated(x, y, lambda v: np.maximum(v, alpha * v))

    def relu6(self, x: str) -> str:
        """min(max(x, 0), 6) as Clip, bounds as inputs."""
        y = self.op("Clip", x, self.scalar("zero", 0.0), self.scalar("six", 6.0))
        return self._activated(x, y, lambda v: np.clip(v, 0, 6))

    def silu(self, x: str) -> str:
        """x · sigmoid(x) as Sigmoid and Mul (swish)."""
        y = self.op("Mul", x, self.op("Sigmoid", x))
        return self._activated(x, y, lambda v: v / (1 + np.exp(-v)))

    def gate(self, x: str, logits: str) -> str:
        """x · sigmoid(logits), the latter broadcast over the map (squeeze and excitation)."""
        y = self.op("Mul", self.op("Sigmoid", logits), x)
        self.channels[y] = self.channels[x]
        self.mean[y], self.std[y] = self.mean[x] * _GATE, self.std[x] * _GATE
        return y

    def add(self, x: str, y: str) -> str:
        """Residual sum."""
        z = self.op("Add", x, y)
        self.std[z] = math.hypot(self.std[x], self.std[y])
        self.mean[z] = self.mean[x] + self.mean[y]
        return z

    def concat(self, values: Sequence[str]) -> str:
        """Concatenation along channels."""
        y = self.op("Concat", *values, axis=1)
        self.channels[y] = sum(self.channels[value] for value in values)
        self.std[y] = math.sqrt(sum(self.std[value] ** 2 for value in values) / len(values))
        return y

    def max_pool(self, x: str, kernel: int, stride: int, pad: int = 0, **attrs: Any) -> str:
        """MaxPool with symmetric padding; `attrs` may ask for ceil_mode or auto_pad instead."""
        if "auto_pad" not in attrs:
            attrs["pads"] = [pad] * 4
        return self.op(
            "MaxPool", x, kernel_shape=[kernel, kernel], strides=[stride, stride], **attrs
        )

    def global_pool(self, x: str, *, flat: bool) -> str:
        """Average over the map: [N,C,H,W] → [N,C] if `flat`, else [N,C,1,1]."""
        y = self.op("GlobalAveragePool", x)
        self.std[y] = self.std[x] * _POOLED_STD
        return self.op("Flatten", y, axis=1) if flat else y

    def scalar(self, name: str, value: float) -> str:
        """A float32 constant of rank 0."""
        return self.constant(name, np.array(value, dtype=np.float32))

    def ints(self, name: str, *values: int) -> str:
        """An int64 vector: shapes, axes, bounds of slices."""
        return self.constant(name, np.array(values, dtype=np.int64))

    def _activated(self, x: str, y: str, f: Callable[[Array], Array]) -> str:
        """Note what `f` makes of x's moments."""
        self.mean[y], self.std[y] = moments(f, self.mean[x], self.std[x])
        return y

    def _unique(self, name: str) -> str:
        count, unique = 0, name
        while unique in self._names:
            count += 1
            unique = f"{name}_{count}"
        self._names.add(unique)
        return unique
