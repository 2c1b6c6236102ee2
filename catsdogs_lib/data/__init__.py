"""Where photos come from, checking them, the manifest and its split."""
