"""Bundles and the classifier that answers from one: ONNX Runtime, no torch."""
