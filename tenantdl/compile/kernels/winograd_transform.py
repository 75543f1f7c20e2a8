"""The transforms of Winograd convolution F(2×2, 3×3) and F(4×4, 3×3) (Lavin & Gray,
arXiv:1509.09308): Bᵀ for inputs, G for weights, Aᵀ for outputs, one dimension at a time."""

from __future__ import annotations

from tenantdl.compile.kernels.emit import Value
from tenantdl.compile.kernels.vmath import VectorMath

WEIGHT_TRANSFORM = {
    2: [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]],
    4: [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
}


def input_transform(math: VectorMath, d: list[Value]) -> list[Value]:
    """Bᵀ d for m + 2 values, common sub-expressions shared."""
    c, bind = math.const, math.bind
    if len(d) == 4:
        return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]
    even = bind(d[4] - c(4.0) * d[2])
    odd = bind(d[3] - c(4.0) * d[1])
    p = bind(d[4] - d[2])
    q = bind(c(2.0) * (d[3] - d[1]))
    first = (c(4.0) * d[0] - c(5.0) * d[2]) + d[4]
    last = (c(4.0) * d[1] - c(5.0) * d[3]) + d[5]
    return [first, even + odd, even - odd, p + q, p - q, last]


def output_transform(math: VectorMath, z: list[Value]) -> list[Value]:
    """Aᵀ z: m values from m + 2."""
    c, bind = math.const, math.bind
    if len(z) == 4:
        return [(z[0] + z[1]) + z[2], (z[1] - z[2]) - z[3]]
    s1, s2 = bind(z[1] + z[2]), bind(z[1] - z[2])
    s3, s4 = bind(z[3] + z[4]), bind(z[3] - z[4])
    return [
        (z[0] + s1) + s3,
        s2 + c(2.0) * s4,
        s1 + c(4.0) * s3,
        (s2 + c(8.0) * s4) + z[5],
    ]
