"""Training: datasets, feature extraction, the head, the loop, checkpoints and distributed runs."""
