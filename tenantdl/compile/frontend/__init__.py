"""ONNX → graph: static shapes, constants folded, functions and control flow resolved.

read.py       the file and its weights, every size checked first
bind.py       static shapes of the inputs
tracer.py     walks the nodes once: scopes, functions, and the rules of
  upgrade.py    old opsets    expand.py  functions and shapes
  control.py    If, Loop, Scan    recurrent.py  RNN, GRU, LSTM
builder.py    appends operators: fold.py constants, infer.py types
load.py       all of it; export.py  the way back
"""

from tenantdl.compile.frontend.export import to_onnx
from tenantdl.compile.frontend.load import load_graph

__all__ = ["load_graph", "to_onnx"]
