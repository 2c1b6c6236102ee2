"""Releases: build and push an image, put it into service, verify it, keep the ledger, trace an endpoint."""
