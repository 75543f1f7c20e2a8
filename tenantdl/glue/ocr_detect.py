"""Where text is: PP-OCR's pre- and post-processing of the detector, on images as uint8 [H, W, 3].

As published (rapidocr 3.10.0, `ch_ppocr_det`, `utils/process_img`; Apache-2.0): sides bounded, flat
images padded, the shorter side brought to 736, pixels to −1..1; then differentiable binarisation:
contours of the thresholded map, scored, and grown by area · ratio / perimeter. Two differences:
the image is letterboxed into one of the sizes that were compiled, and since a box is a rectangle it
is grown in closed form, where the original offsets a polygon on a grid of whole pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tenantdl.glue.work import Array

cv2.setNumThreads(1)  # cores are given out by the scheduler

SIDE_LEAST, SIDE_MOST, SIDE_WANTED = 30, 2000, 736
_STEP = 32  # the detector halves its image five times
_RATIO_MAX, _HEIGHT_LEAST = 8, 30  # flatter images get room above and below
THRESHOLD, BOX_SCORE_LEAST, GROWTH = 0.3, 0.5, 1.6
CANDIDATES_MAX = 1000
_BOX_SIDE_LEAST, _GROWN_SIDE_LEAST, _FINAL_SIDE_LEAST = 3, 5, 3
_LINE_HEIGHT = 10  # boxes whose tops differ by less are on one line

Image = NDArray[np.uint8]
Boxes = NDArray[np.float32]


class Page(NamedTuple):
    """`image`: what is read; a pixel (x, y) of it is (x · scale_x, (y − top) · scale_y) of the
    original's, which is `width` × `height`."""

    image: Image
    top: int
    scale_x: float
    scale_y: float
    width: int
    height: int


class Fitted(NamedTuple):
    """`tensor` [1, 3, H, W] for the detector; its first `height` × `width` pixels are the page."""

    tensor: Array
    height: int
    width: int


def prepare(image: Image) -> Page:
    """The page in a size fit for reading: sides within bounds, not too flat."""
    height, width = image.shape[:2]
    if max(height, width) > SIDE_MOST:
        image = _scaled(image, SIDE_MOST / max(height, width))
    if min(image.shape[:2]) < SIDE_LEAST:
        image = _scaled(image, SIDE_LEAST / min(image.shape[:2]))
    scale_y, scale_x = height / image.shape[0], width / image.shape[1]
    top = 0
    if image.shape[0] <= _HEIGHT_LEAST or image.shape[1] / image.shape[0] > _RATIO_MAX:
        wanted = max(int(image.shape[1] / _RATIO_MAX), _HEIGHT_LEAST) * 2
        top = abs(wanted - image.shape[0]) // 2
        image = np.pad(image, ((top, top), (0, 0), (0, 0)))
    return Page(image, top, scale_x, scale_y, width, height)


def _scaled(image: Image, ratio: float) -> Image:
    height, width = (_stepped(int(side * ratio)) for side in image.shape[:2])
    return cv2.resize(image, (width, height)).astype(np.uint8, copy=False)


def _stepped(side: int) -> int:
    return max(round(side / _STEP), 1) * _STEP


def fit(image: Image, sizes: list[tuple[int, int]]) -> Fitted:
    """The image for the detector: in the published size if a compiled one (height, width) has room
    for it, else as large as fits; black beside it."""
    ratio = max(SIDE_WANTED / min(image.shape[:2]), 1.0)
    wanted = tuple(_stepped(int(side * ratio)) for side in image.shape[:2])
    rooms = [size for size in sizes if size[0] >= wanted[0] and size[1] >= wanted[1]]
    if rooms:
        room = min(rooms, key=lambda size: size[0] * size[1])
        height, width = wanted
    else:
        shrunk = {size: min(size[0] / wanted[0], size[1] / wanted[1]) for size in sizes}
        room = max(sizes, key=lambda size: (shrunk[size], -size[0] * size[1]))
        height, width = (max(int(side * shrunk[room]), 1) for side in wanted)
    tensor = np.full((1, 3, *room), -1, np.float32)
    pixels = cv2.resize(image, (width, height)).transpose(2, 0, 1)
    np.multiply(pixels, np.float32(2 / 255), out=tensor[0, :, :height, :width])
    tensor[0, :, :height, :width] -= 1
    return Fitted(tensor, height, width)


def boxes_of(score: Array, fitted: Fitted, page: Page) -> Boxes:
    """Boxes [n, 4, 2] (x, y; clockwise from the top left) on the page's image, in reading order,
    from the detector's map [1, 1, H, W]."""
    own = np.ascontiguousarray(score[0, 0, : fitted.height, : fitted.width])
    mask = cv2.dilate((own > THRESHOLD).astype(np.uint8), np.ones((2, 2), np.uint8))
    contours, _ = cv2.findContours(mask * 255, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    height, width = page.image.shape[:2]
    scale = np.array([width / fitted.width, height / fitted.height], np.float32)
    found = []
    for contour in contours[:CANDIDATES_MAX]:
        (center, sides, angle) = cv2.minAreaRect(contour)
        if min(sides) < _BOX_SIDE_LEAST:
            continue
        corners = cv2.boxPoints((center, sides, angle))
        if _score(own, corners) < BOX_SCORE_LEAST:
            continue
        more = 2 * sides[0] * sides[1] * GROWTH / (2 * (sides[0] + sides[1]))
        grown = (sides[0] + more, sides[1] + more)
        if min(grown) < _GROWN_SIDE_LEAST:
            continue
        box = np.round(cv2.boxPoints((center, grown, angle)) * scale)
        box = _clockwise(np.clip(box, 0, [width, height]).astype(np.float32))
        box = np.clip(box, 0, [width - 1, height - 1]).astype(np.float32)
        sides_of = np.linalg.norm(box[0] - box[1]), np.linalg.norm(box[0] - box[3])
        if min(int(side) for side in sides_of) > _FINAL_SIDE_LEAST:
            found.append(box)
    return _in_reading_order(np.array(found, np.float32).reshape(-1, 4, 2))


def on_original(boxes: Boxes, page: Page) -> Boxes:
    """Boxes of the page's image as those of the original one."""
    scale = np.array([page.scale_x, page.scale_y])
    moved: Boxes = ((boxes - np.array([0, page.top])) * scale).astype(np.float32)
    return np.clip(moved, 0, np.array([page.width, page.height], np.float32))


def crop(image: Image, box: Boxes) -> Image:
    """What a box holds, upright: standing text is turned by a quarter."""
    width = int(max(np.linalg.norm(box[0] - box[1]), np.linalg.norm(box[2] - box[3])))
    height = int(max(np.linalg.norm(box[0] - box[3]), np.linalg.norm(box[1] - box[2])))
    to = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    cut = cv2.warpPerspective(
        image,
        cv2.getPerspectiveTransform(box, to),
        (width, height),
        borderMode=cv2.BORDER_REPLICATE,
        flags=cv2.INTER_CUBIC,
    )
    return np.rot90(cut) if height / width >= 1.5 else cut  # type: ignore[return-value]


def _score(score: Array, corners: Array) -> float:
    """Mean of the map within a box."""
    height, width = score.shape
    low = np.clip(np.floor(corners.min(axis=0)), 0, [width - 1, height - 1]).astype(np.int32)
    high = np.clip(np.ceil(corners.max(axis=0)), 0, [width - 1, height - 1]).astype(np.int32)
    mask = np.zeros((high[1] - low[1] + 1, high[0] - low[0] + 1), np.uint8)
    cv2.fillPoly(mask, [(corners - low).astype(np.int32)], 1)
    return float(cv2.mean(score[low[1] : high[1] + 1, low[0] : high[0] + 1], mask)[0])


def _clockwise(box: Boxes) -> Boxes:
    """Corners from the top left on."""
    by_x = box[np.argsort(box[:, 0])]
    left, right = by_x[:2], by_x[2:]
    top_left, bottom_left = left[np.argsort(left[:, 1])]
    top_right, bottom_right = right[np.argsort(right[:, 1])]
    return np.stack([top_left, top_right, bottom_right, bottom_left])


def _in_reading_order(boxes: Boxes) -> Boxes:
    """Lines from top to bottom, boxes of a line from left to right."""
    if not len(boxes):
        return boxes
    boxes = boxes[np.argsort(boxes[:, 0, 1], kind="stable")]
    line = np.cumsum(np.diff(boxes[:, 0, 1], prepend=boxes[0, 0, 1]) >= _LINE_HEIGHT)
    return boxes[np.lexsort((boxes[:, 0, 0], line))]
