"""From a trained model to a bundle: ONNX export, parity check, quantization and the model card."""
