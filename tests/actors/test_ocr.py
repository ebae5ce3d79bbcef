"""The examples' text models without a graph: what the page says, and the corner cases around it."""

from __future__ import annotations

import numpy as np
import pytest

import ocr
from read_page_straight import StraightReader

TEXT = [
    "Region-based segmentation",
    "Let us first determine markers of the coins and the",
    "background. These markers are pixels that we can label",
    "unambiguously as either object or background. Here,",
    "the markers are found at the two extreme parts of the",
    "histogram of grey values:",
    ">>> markers = np.zeros_like(coins)",
]


def without_spaces(text: str) -> str:
    return text.replace(" ", "")


def test_the_page_is_read() -> None:
    """All letters are right; the model loses some of the spaces between words, which are narrow on this page."""
    texts, lines = StraightReader().page(ocr.sample_page())
    assert [without_spaces(text) for text in texts] == [without_spaces(text) for text in TEXT]
    assert sum(text.count(" ") for text in texts) >= sum(text.count(" ") for text in TEXT) - 5
    assert [line.bend[2] for line in lines] == sorted(line.bend[2] for line in lines)


def test_an_empty_page_has_no_lines() -> None:
    assert StraightReader().page(np.full((64, 96), 255, np.uint8)) == ([], [])


def test_lines_side_by_side_are_read_from_left_to_right() -> None:
    def line(left: int, height: float) -> ocr.TextLine:
        return ocr.TextLine(left, left + 50, (0.0, 0.0, height), 10.0)

    first, second, third = line(0, 22.0), line(100, 20.0), line(0, 50.0)
    assert ocr.reading_order([third, second, first]) == [first, second, third]


@pytest.mark.parametrize("height", [1, 7, 48, 100])
@pytest.mark.parametrize("width", [1, 31, 500])
def test_any_strip_fits_its_tensor(height: int, width: int) -> None:
    strip = np.full((height, width), 200, np.uint8)
    tensor = np.full(ocr.recognition_shape(strip), np.nan, np.float32)
    ocr.fill_recognition(strip, tensor)
    assert np.isfinite(tensor).all()


def test_repeated_letters_merge_unless_a_blank_stands_between() -> None:
    classes = [1, 1, 0, 1, 2, 2, 0, 0]
    scores = np.eye(3, dtype=np.float32)[classes][np.newaxis]
    assert ocr.read_line(scores, ["", "o", "k"]) == "ook"


def test_a_picture_shows_page_and_text_side_by_side() -> None:
    page = np.full((40, 60), 255, np.uint8)
    outline = ocr.TextLine(5, 55, (0.0, 0.0, 20.0), 8.0).outline()
    picture = ocr.draw(page, [outline], ["text"])
    assert picture.size == (360, 120)
    assert np.asarray(picture.crop((180, 0, 360, 120)).convert("L")).min() < 100
