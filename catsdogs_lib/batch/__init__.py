"""Scoring many photos: sources, output, local worker processes, and S3 events from a queue."""
