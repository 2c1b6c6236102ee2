"""Errors, atomic file I/O, progress, git and S3: what every package may use."""
