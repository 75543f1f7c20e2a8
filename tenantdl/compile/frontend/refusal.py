"""How the frontend says no: `Refusal` inside, one `UserError` line that names the node outside.

Also the sizes beyond which a model counts as hostile. They bound memory before it is taken.
"""

from __future__ import annotations

PROTOBUF_BYTES_MAX = 2**31 - 1  # protobuf's own limit
WEIGHT_BYTES_MAX = 16 * 2**30  # all external data of a model together
METADATA_BYTES_MAX = 2**20  # all metadata of a model together
VALUE_BYTES_MAX = 4 * 2**30  # one tensor of the graph
FOLD_BYTES_MAX = 512 * 2**20  # one constant that folding makes
FOLD_TOTAL_BYTES_MAX = 2 * 2**30  # all constants that folding makes
NODES_MAX = 100_000  # nodes of the graph, after functions and loops are unrolled
DEPTH_MAX = 32  # functions and branches within each other
STEPS_MAX = 512  # steps of a recurrent operator or a loop that are unrolled
DATA_ELEMENTS_MAX = 4096  # constants up to this size take part in shape inference


class Refusal(Exception):
    """A node or value that cannot be compiled; the reader of the node adds its name."""


def check_text(name: object) -> None:
    """Raises Refusal for names that are not UTF-8, which protobuf hands out as bytes."""
    if not isinstance(name, str):
        raise Refusal(f"a name is not text: {name!r}")
