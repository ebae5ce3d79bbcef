"""Read a photographed page: one model finds the lines of text, replicas of another read them side by side.

slabwire run examples/read_page.py        # then, elsewhere: slabwire.connect("read_page")
python examples/read_page.py              # or by itself
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
from jaxtyping import UInt8

import ocr
import slabwire
from slabwire import Actor, Graph
from slabwire.actors.inference import Model


class Reader(Actor):
    """From pixels to text. What it knows of the models is in ocr.py."""

    def __init__(self) -> None:
        self.characters: list[str] = []  # asked for with the first page

    async def page(self, image: UInt8[np.ndarray, "h w"]) -> dict[str, Any]:
        """The text of a gray page: {"lines": [str], "outlines": [[[x, y], ...]], "milliseconds": {stage: float}}."""
        began = time.perf_counter()
        lines = await self.find(image)
        found = time.perf_counter()
        if not self.characters:
            self.characters = ocr.alphabet((await self.call("recognise.describe"))["metadata"])
        # All lines are on their way at once; the replicas of "recognise" share them.
        texts = await asyncio.gather(*(self.read(ocr.cut(image, line)) for line in lines))
        read = time.perf_counter()
        return {
            "lines": list(texts),
            "outlines": [line.outline() for line in lines],
            "milliseconds": {"detect": (found - began) * 1e3, "recognise": (read - found) * 1e3},
        }

    @slabwire.private
    async def find(self, image: ocr.Pixels) -> list[ocr.TextLine]:
        tensor = self.loan(ocr.detection_shape(image), np.float32)  # a block that "detect" will read where it lies
        ocr.fill_detection(image, tensor)
        return ocr.find_lines(await self.call("detect.infer", tensor), image)

    @slabwire.private
    async def read(self, strip: ocr.Pixels) -> str:
        tensor = self.loan(ocr.recognition_shape(strip), np.float32)
        ocr.fill_recognition(strip, tensor)
        return ocr.read_line(await self.call("recognise.infer", tensor), self.characters)


def build(replicas: int = 2, name: str = "read_page") -> Graph:
    """The graph, with as many replicas of recognition as asked for."""
    graph = Graph(name)
    graph.add(Model, name="detect", path=ocr.model_path("det"), cores=1)
    graph.add(Model, name="recognise", path=ocr.model_path("rec"), cores=1, replicas=replicas)
    reader = graph.add(Reader, name="reader")
    graph.expose(reader.page)
    return graph


graph = build()

if __name__ == "__main__":
    with graph.run() as running:
        print(*running.client.call("reader.page", ocr.sample_page(), timeout_s=60)["lines"], sep="\n")
