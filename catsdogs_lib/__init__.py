"""From cat and dog photos to a trusted HTTPS endpoint."""

__version__ = "0.1.0"
