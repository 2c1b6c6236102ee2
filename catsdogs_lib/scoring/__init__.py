"""Many photos to Parquet, on all cores."""
