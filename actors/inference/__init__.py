"""Any ONNX model as an actor.

Needs `pip install slabwire[inference]` where the model runs; a graph can be defined and checked without it.
"""

from .model import Model

__all__ = ["Model"]
