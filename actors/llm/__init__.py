"""Language models: chat models from GGUF files on ONNX Runtime, their keys and values in slots of shared memory."""

from .language_model import LanguageModel

__all__ = ["LanguageModel"]
