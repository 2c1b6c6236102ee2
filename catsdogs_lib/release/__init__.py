"""Delivery of an image: build, registries, deployment targets, verification, ledger and trace."""
