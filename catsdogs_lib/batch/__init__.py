"""Batch scoring: sources of photos, the engine that scores them, Parquet output, and S3 events from a queue."""
