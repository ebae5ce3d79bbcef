"""Frames through three actors over edges, with numpy alone: scale, blur, measure.

    python examples/pipeline.py [frames]

Each edge hands a tensor on without copying it: `loan` is a block of shared memory, and what is returned is read there.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from slabwire import Actor, Graph

HEIGHT, WIDTH = 480, 640
IN_FLIGHT = 8


class Scale(Actor):
    """Pixels to [0, 1]."""

    def frame(self, pixels: UInt8[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
        scaled = self.loan(pixels.shape, np.float32)
        np.multiply(pixels, np.float32(1 / 255), out=scaled)
        return scaled


class Blur(Actor):
    """Each pixel becomes the mean of itself and its neighbours above and below."""

    def frame(self, image: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
        blurred = self.loan(image.shape, np.float32)
        np.add(image[:-2], image[1:-1], out=blurred[1:-1])
        blurred[1:-1] += image[2:]
        blurred[1:-1] /= 3
        blurred[0], blurred[-1] = image[0], image[-1]
        return blurred


class Measure(Actor):
    """What a frame looks like, and how many came before: state that dies with its process and starts again at 0."""

    def on_start(self) -> None:
        self.seen = 0

    def frame(self, image: Float32[np.ndarray, "h w"]) -> dict[str, Any]:
        self.seen += 1
        return {"mean": float(image.mean()), "darkest": float(image.min()), "seen": self.seen}


graph = Graph("pipeline")
scale = graph.add(Scale)
blur = graph.add(Blur)
measure = graph.add(Measure)
graph.connect(scale.frame, blur.frame, capacity=16)
graph.connect(blur.frame, measure.frame, capacity=16)
graph.expose(scale.frame)


def main(frames: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), np.uint8)
    with graph.run() as running, ThreadPoolExecutor(IN_FLIGHT) as pool:

        def send(_number: int) -> dict[str, Any]:
            answer: dict[str, Any] = running.client.call("scale.frame", pixels, timeout_s=30)
            return answer

        began = time.perf_counter()
        answers = list(pool.map(send, range(frames)))
        seconds = time.perf_counter() - began
    print(f"{frames} frames of {WIDTH} x {HEIGHT} in {seconds:.2f} s: {frames / seconds:.0f} frames/s")
    print(f"{frames * HEIGHT * WIDTH * 9 / seconds / 1e6:.0f} MB/s handed over")
    print(f"measured: {max(each['seen'] for each in answers)} frames of mean {answers[0]['mean']:.3f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
