"""Measuring models: metrics, calibration, slices, selective prediction, out-of-distribution scores, the gate."""
