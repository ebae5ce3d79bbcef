"""Model files: GGUF, its quantisation and architecture, and the ONNX graph that is made of it."""
