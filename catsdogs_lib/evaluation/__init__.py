"""Evaluation: metrics, calibration, slices, selective prediction, out-of-distribution scores, gate, label audit."""
