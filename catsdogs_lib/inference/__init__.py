"""Bundles, classification and saliency maps: ONNX Runtime, no torch."""
