"""Weights of direct convolutions as their kernels read them."""

from __future__ import annotations

import numpy as np

from tenantdl.compile.graph import Array


def pack_weights(weights: Array, lanes: int) -> Array:
    """[O][C/groups][kh][kw] → [O/V][C/groups/V][kh][kw][V in][V out], missing channels zero."""
    outputs, channels, kh, kw = weights.shape
    ob, cb = -(-outputs // lanes), -(-channels // lanes)
    full = np.zeros((ob * lanes, cb * lanes, kh, kw), np.float32)
    full[:outputs, :channels] = weights
    blocked = full.reshape(ob, lanes, cb, lanes, kh, kw)
    return np.ascontiguousarray(blocked.transpose(0, 2, 4, 5, 3, 1))


def pack_planar(weights: Array, lanes: int) -> Array:
    """[O][C][kh][kw] → [O/V][C][kh][kw][V out]."""
    outputs, channels, kh, kw = weights.shape
    ob = -(-outputs // lanes)
    full = np.zeros((ob * lanes, channels, kh, kw), np.float32)
    full[:outputs] = weights
    return np.ascontiguousarray(full.reshape(ob, lanes, channels, kh, kw).transpose(0, 2, 3, 4, 1))


def pack_depthwise(weights: Array, lanes: int) -> Array:
    """[C][1][kh][kw] → [C/V][kh][kw][V]."""
    channels, _, kh, kw = weights.shape
    blocks = -(-channels // lanes)
    full = np.zeros((blocks * lanes, kh, kw), np.float32)
    full[:channels] = weights[:, 0]
    return np.ascontiguousarray(full.reshape(blocks, lanes, kh, kw).transpose(0, 2, 3, 1))


def densify(weights: Array, groups: int, channels: int) -> Array:
    """Grouped weights as dense ones with zeros outside the groups."""
    outputs, inner, kh, kw = weights.shape
    full = np.zeros((outputs, channels, kh, kw), np.float32)
    step = outputs // groups
    for g in range(groups):
        full[g * step : (g + 1) * step, g * inner : (g + 1) * inner] = weights[
            g * step : (g + 1) * step
        ]
    return full
