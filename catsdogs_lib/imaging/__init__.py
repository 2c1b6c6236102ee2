"""Decoding photos within limits, preprocessing and image statistics: the only place that decodes a photo."""
