"""ONNX → graph: static shapes, constants folded, functions and control flow resolved.

read.py       the file and its weights, every size checked first
bind.py       static shapes of the inputs
tracer.py     walks the nodes once: scopes, functions, and the rules of
  upgrade.py, upgrade_layers.py    old opsets
  windows.py                       implicit padding
  expand.py                        functions, shapes
  control.py                       If, Loop, Scan
  recurrent.py, spectral.py        RNN, GRU, LSTM; DFT, STFT
builder.py    appends operators: fold.py constants, infer.py types
load.py       all of it; export.py  the way back

Operators have the form of the newest opset. Where its meaning differs from the graph's opset, the
newer one holds: GroupNormalization has a scale and bias a channel, GridSample's modes are linear
and cubic.
"""

from tenantdl.compile.frontend.export import to_onnx
from tenantdl.compile.frontend.load import load_graph

__all__ = ["load_graph", "to_onnx"]
