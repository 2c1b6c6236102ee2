"""From a folder, archive or download to a manifest: layouts, checks, duplicates, splits and review."""
