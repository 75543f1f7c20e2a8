"""tenantdl: many deep-learning models on shared CPU cores, each within its latency target.

The pipeline, from a model to an answer:

    import tenantdl

    summary = tenantdl.compile("mobilenet_v2.onnx", "mobilenet_v2.bundle")   # offline, once
    model = tenantdl.load("mobilenet_v2.bundle")                             # online, milliseconds
    outputs = model.run({"image": image})                                    # dict of NumPy arrays

`compile` turns ONNX into a bundle: kernels, packed weights and a static plan cut into segments.
`load` maps a bundle; neither ONNX nor the TVM compiler is imported then. Serving many bundles to
many tenants is `tenantdl serve WORKLOAD.toml`, or `tenantdl.daemon` from Python.

Everything listed in `__all__` is public and loaded on first use, so `import tenantdl` is cheap.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tenantdl.api import Model as Model
    from tenantdl.api import compile as compile
    from tenantdl.api import load as load
    from tenantdl.bundle.manifest import Manifest as Manifest
    from tenantdl.compile.pipeline import Summary as CompileSummary
    from tenantdl.errors import ExecutionError as ExecutionError
    from tenantdl.errors import InvariantError as InvariantError
    from tenantdl.errors import TenantdlError as TenantdlError
    from tenantdl.errors import UserError as UserError
    from tenantdl.machine import Machine as Machine
    from tenantdl.machine import this_machine as this_machine

# Public name → where it is defined. Strings, so that import-linter does not count the root package
# as importing all rooms.
_HOME = {
    "CompileSummary": "tenantdl.compile.pipeline:Summary",
    "Model": "tenantdl.api:Model",
    "Manifest": "tenantdl.bundle.manifest:Manifest",
    "ExecutionError": "tenantdl.errors:ExecutionError",
    "InvariantError": "tenantdl.errors:InvariantError",
    "TenantdlError": "tenantdl.errors:TenantdlError",
    "UserError": "tenantdl.errors:UserError",
    "Machine": "tenantdl.machine:Machine",
    "this_machine": "tenantdl.machine:this_machine",
}

__all__ = [  # noqa: RUF022 (in the order in which they are met, not the alphabet's)
    "compile",
    "CompileSummary",
    "load",
    "Model",
    "Manifest",
    "Machine",
    "this_machine",
    "TenantdlError",
    "UserError",
    "ExecutionError",
    "InvariantError",
    "__version__",
]


class _CallablePackage(ModuleType):
    """`tenantdl.compile` and `tenantdl.load` name packages and functions. Python binds a package to
    its name as soon as anything below it is imported, so the package itself answers the call."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        function = self.__name__.rpartition(".")[2]
        return getattr(importlib.import_module("tenantdl.api"), function)(*args, **kwargs)


if not TYPE_CHECKING:
    for _name in ("tenantdl.compile", "tenantdl.load"):
        importlib.import_module(_name).__class__ = _CallablePackage

    def __getattr__(name: str) -> Any:
        if name in _HOME:
            module, _, attribute = _HOME[name].partition(":")
            value = getattr(importlib.import_module(module), attribute)
            globals()[name] = value
            return value
        raise AttributeError(f"module 'tenantdl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
