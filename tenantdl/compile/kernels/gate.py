"""A 1×1 convolution of an image times a gate, a number for each channel: the weights take the gate.

Where an image has more pixels than the convolution has outputs, its weights are multiplied in a
pass of their own; else in registers, each time that they are read.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from tenantdl.compile.context import Context, Group
from tenantdl.compile.fusion import bind_program
from tenantdl.compile.kernels import conv
from tenantdl.compile.kernels.conv_choice import direct_schedule
from tenantdl.compile.kernels.conv_chunked import conv2d
from tenantdl.compile.kernels.conv_spec import ConvSpec
from tenantdl.compile.kernels.emit import Emitter
from tenantdl.compile.kernels.layout import Packed
from tenantdl.compile.kernels.rows import spread
from tenantdl.compile.operator import Kernel


def lower_gated(context: Context, group: Group, image: str, gate: str) -> None:
    """Lower the 1×1 convolution `group`, which reads the product of `image` and `gate`."""
    node = group.anchor
    program, operands = bind_program(context, group, "packed")
    source, data = context.packed(image)
    factors, layout = context.packed(gate)
    weights, bias = conv.constants(context, node)
    out_name, out = context.new_packed(group.output)
    spec = ConvSpec(data, out, (1, 1), program=program)
    if spec.rows * spec.columns >= out.channels:
        spec = replace(spec, own_weights=True)
        scaled = context.scratch(spec.weight_shape)
        kernel = gated_weights(spec, layout)
        context.emit(f"gate {group.name}", "gate", kernel, (weights, factors, scaled))
        args: tuple[str, ...] = (source, scaled, bias, *operands, out_name)
    else:
        spec = replace(spec, gate=layout)
        args = (source, weights, bias, factors, *operands, out_name)
    direct = direct_schedule(context, spec)
    kernel, flops = conv2d(spec, direct.schedule), conv.flops(context, node)
    context.emit(group.name, "conv2d", kernel, args, flops=flops, choices=(direct,))


def gated_weights(spec: ConvSpec, gate: Packed) -> Kernel:
    """Parameters: packed weights, gate, weights for every image (`spec.weight_shape`)."""
    digest = hashlib.sha256(repr((spec.weight_shape, gate)).encode()).hexdigest()[:12]
    lanes, outputs = spec.lanes, spec.out.blocks
    with Emitter(f"gated_weights_{digest}", lanes) as e:
        weights = e.param("weights", (outputs, *spec.weight_shape[1:]))
        factors = e.param("gate", gate.shape)
        out = e.param("out", spec.weight_shape)
        elements = gate.batch * outputs * gate.blocks * lanes * lanes
        with spread(e, gate.batch * outputs, elements // 4) as task:
            n, block = task // outputs, task % outputs
            with e.serial(gate.blocks) as c:
                for lane in range(lanes):
                    factor = e.splat(factors[gate.index(n, c, 0, 0, lane)])
                    value = e.load(weights, (block, c, 0, 0, lane, 0)) * factor
                    e.store(out, (task, c, 0, 0, lane, 0), value)
    return e.kernel()
