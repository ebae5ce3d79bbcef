"""The work of read_page.py in one script, straight through ONNX Runtime: what the graph is compared with.

python examples/read_page_straight.py
"""

from __future__ import annotations

import sys
import time

import numpy as np
import onnxruntime

import ocr


def load(name: str, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(ocr.model_path(name), options, providers=["CPUExecutionProvider"])


class StraightReader:
    """Detection, then one line after the other."""

    def __init__(self, threads: int = 1) -> None:
        self.detect = load("det", threads)
        self.recognise = load("rec", threads)
        self.characters = ocr.alphabet(self.recognise.get_modelmeta().custom_metadata_map)

    def page(self, image: ocr.Pixels) -> tuple[list[str], list[ocr.TextLine]]:
        tensor = np.empty(ocr.detection_shape(image), np.float32)
        ocr.fill_detection(image, tensor)
        lines = ocr.find_lines(self.detect.run(None, {"x": tensor})[0], image)
        return [self.text(ocr.cut(image, line)) for line in lines], lines

    def text(self, strip: ocr.Pixels) -> str:
        tensor = np.empty(ocr.recognition_shape(strip), np.float32)
        ocr.fill_recognition(strip, tensor)
        return ocr.read_line(self.recognise.run(None, {"x": tensor})[0], self.characters)


def main() -> None:
    reader = StraightReader()
    began = time.perf_counter()
    texts, _ = reader.page(ocr.sample_page())
    milliseconds = (time.perf_counter() - began) * 1e3
    print(*texts, sep="\n")
    print(f"{milliseconds:.0f} ms", file=sys.stderr)


if __name__ == "__main__":
    main()
