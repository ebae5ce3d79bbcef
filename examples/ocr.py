"""Around the two text models: what they need as input, and what their outputs mean. Nothing of Slabwire in here.

The models are PP-OCRv4's text detection and text recognition, which the wheel of rapidocr-onnxruntime ships.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

Pixels = NDArray[np.uint8]  # [height, width], gray, or [height, width, 3]
Floats = NDArray[np.float32]

# Detection reads sizes that are multiples of 32; a small picture is enlarged: it finds lines of 20 to 60 pixels best.
DETECTION_STEP = 32
DETECTION_SHORT_SIDE = 320
# The mean and deviation that the detection model was trained with (ImageNet's).
MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)
# A pixel is text above PIXEL_SCORE, a region where its pixels' mean is above LINE_SCORE: the models' own settings.
PIXEL_SCORE = 0.3
LINE_SCORE = 0.5
SMALLEST = 4  # pixels of detection's output
# The model draws text smaller than it is; a line grows by area * GROW / perimeter each way (DB, arXiv:1911.08947, 3.4).
GROW = 2.0
# How much more than the line's height a strip shows. Recognition loses the spaces between words where letters fill it.
MARGIN = 1.5
# Recognition reads lines of this height; widths are rounded up, so that few different shapes come up.
LINE_HEIGHT = 48
LINE_STEP = 32


def model_path(name: str) -> str:
    """Where a model of the wheel lies: "det" or "rec". The package is found, not imported: it would want OpenCV."""
    spec = find_spec("rapidocr_onnxruntime")
    if spec is None or spec.origin is None:
        raise SystemExit("the text models are missing: pip install --no-deps rapidocr-onnxruntime==1.4.4")
    return str(Path(spec.origin).parent / "models" / f"ch_PP-OCRv4_{name}_infer.onnx")


def sample_page() -> Pixels:
    """The photographed page of text that scikit-image ships: 191 x 384 pixels, gray."""
    from skimage import data

    return np.asarray(data.page(), np.uint8)  # type: ignore[no-untyped-call]


def detection_shape(page: Pixels) -> tuple[int, int, int, int]:
    """The shape of detection's input for this page."""
    height, width = page.shape[:2]
    scale = max(1.0, DETECTION_SHORT_SIDE / min(height, width))
    return (1, 3, _multiple(height * scale), _multiple(width * scale))


def _multiple(size: float) -> int:
    return max(DETECTION_STEP, round(size / DETECTION_STEP) * DETECTION_STEP)


def fill_detection(page: Pixels, tensor: Floats) -> None:
    """Write the page into detection's input, which has `detection_shape(page)`."""
    tensor[0] = _resized(page, tensor.shape[3], tensor.shape[2])
    tensor[0] -= MEAN
    tensor[0] /= DEVIATION


def _resized(pixels: Pixels, width: int, height: int) -> Floats:
    """[3, height, width] in 0 to 1."""
    image = (
        Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    )
    return np.asarray(image, np.float32).transpose(2, 0, 1) / np.float32(255)


@dataclass(frozen=True)
class TextLine:
    """Where a line of text runs: from `left` to `right` along a parabola, `half` pixels to each side of it.

    Pages are photographed, so lines bend; cut along the bend they are read far better than out of a straight box.
    """

    left: int
    right: int
    bend: tuple[float, float, float]
    half: float

    def middle(self, x: NDArray[Any]) -> NDArray[Any]:
        return np.polyval(self.bend, x)

    def outline(self) -> list[list[float]]:
        """Corners [x, y] around the line, in pixels of the page."""
        x = np.linspace(self.left, self.right, 9)
        y = self.middle(x)
        above, below = np.stack([x, y - self.half], 1), np.stack([x, y + self.half], 1)[::-1]
        return np.concatenate([above, below]).round(1).tolist()  # type: ignore[no-any-return]


def find_lines(scores: Floats, page: Pixels) -> list[TextLine]:
    """The lines of text, in reading order, from detection's output [1, 1, height, width]."""
    score = scores[0, 0]
    regions, _ = ndimage.label(score > PIXEL_SCORE, structure=np.ones((3, 3)))
    scale_x, scale_y = page.shape[1] / score.shape[1], page.shape[0] / score.shape[0]
    lines = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(regions), 1):
        inside = regions[rows, columns] == number
        if min(inside.shape) >= SMALLEST and score[rows, columns][inside].mean() >= LINE_SCORE:
            lines.append(_line(inside, columns.start, rows.start, scale_x, scale_y))
    return reading_order([line for line in lines if line.right > line.left])


def _line(inside: NDArray[np.bool_], left: int, top: int, scale_x: float, scale_y: float) -> TextLine:
    heights = inside.sum(axis=0)
    half = float(np.median(heights)) / 2
    x = np.arange(inside.shape[1])
    y = (inside * np.arange(inside.shape[0])[:, None]).sum(axis=0) / heights
    # The ends are round: there the middle says little.
    body = slice(int(half), max(int(half) + 3, len(x) - int(half)))
    degree = 2 if len(x) > 8 * half else 0
    bend = np.polyfit((x[body] + left + 0.5) * scale_x, (y[body] + top + 0.5) * scale_y, degree)
    grow = 2 * half * len(x) * GROW / (2 * (2 * half + len(x)))
    start, stop = (left - grow) * scale_x, (left + len(x) + grow) * scale_x
    return TextLine(
        int(start), int(np.ceil(stop)), (0.0,) * (2 - degree) + tuple(bend.tolist()), (half + grow) * scale_y
    )


def reading_order(lines: list[TextLine]) -> list[TextLine]:
    """From top to bottom; what stands side by side in one row, from left to right."""
    rows: list[list[TextLine]] = []
    for line in sorted(lines, key=_height):
        if rows and _height(line) - _height(rows[-1][0]) < rows[-1][0].half:
            rows[-1].append(line)
        else:
            rows.append([line])
    return [line for row in rows for line in sorted(row, key=lambda each: each.left)]


def _height(line: TextLine) -> float:
    return float(line.middle(np.array((line.left + line.right) / 2)))


def cut(page: Pixels, line: TextLine) -> Pixels:
    """The line as a straight strip of pixels, [height, width]."""
    gray = page if page.ndim == 2 else page.mean(axis=2)
    x = np.arange(line.left, line.right)
    reach = line.half * MARGIN
    offsets = np.linspace(-reach, reach, max(2, round(2 * reach)))
    y = line.middle(x) + offsets[:, None] - 0.5
    return ndimage.map_coordinates(gray, [y, np.broadcast_to(x, y.shape)], np.uint8, order=1, mode="nearest")  # type: ignore[no-any-return]


def recognition_shape(strip: Pixels) -> tuple[int, int, int, int]:
    """The shape of recognition's input for this strip."""
    height, width = strip.shape[:2]
    wanted = width * LINE_HEIGHT / height
    return (1, 3, LINE_HEIGHT, max(LINE_STEP, int(np.ceil(wanted / LINE_STEP)) * LINE_STEP))


def fill_recognition(strip: Pixels, tensor: Floats) -> None:
    """Write a strip into recognition's input, which has `recognition_shape(line)`; what is left over is gray."""
    height, width = strip.shape[:2]
    used = min(tensor.shape[3], max(1, round(width * LINE_HEIGHT / height)))
    tensor[0, :, :, :used] = _resized(strip, used, LINE_HEIGHT) * 2 - 1
    tensor[0, :, :, used:] = 0


def alphabet(metadata: dict[str, Any]) -> list[str]:
    """What each class of recognition's output stands for: nothing, the model's own characters, a space."""
    return ["", *str(metadata["character"]).splitlines(), " "]


def read_line(scores: Floats, characters: list[str]) -> str:
    """The text of recognition's output [1, steps, classes]: the best class of each step, repetitions merged (CTC)."""
    best = scores[0].argmax(axis=1).tolist()
    text = "".join(characters[after] for before, after in pairwise([-1, *best]) if before != after)
    # The alphabet is Chinese too: brackets and commas come in either width.
    return normalize("NFKC", text).strip()


def draw(page: Pixels, outlines: list[list[list[float]]], texts: list[str]) -> Image.Image:
    """The page with a frame around each line, and beside it what was read, each line at its height."""
    scale = 3
    image = Image.fromarray(page).convert("RGB")
    image = image.resize((image.width * scale, image.height * scale))
    picture = Image.new("RGB", (image.width * 2, image.height), "white")
    picture.paste(image)
    pen = ImageDraw.Draw(picture)
    for outline, text in zip(outlines, texts, strict=True):
        corners = [(x * scale, y * scale) for x, y in outline]
        pen.polygon(corners, outline=(200, 30, 30), width=2)
        height = corners[-1][1] - corners[0][1]
        font = ImageFont.load_default(size=min(36.0, height * 0.6))
        pen.text((image.width + 20, corners[0][1]), text, fill=(20, 20, 20), font=font)
    return picture
