"""Photos from a folder, archive or download, and the manifest of them: labels, checks, duplicates, splits, review."""
