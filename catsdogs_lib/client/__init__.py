"""Clients of an endpoint: HTTP, AWS signatures, the signing proxy, smoke tests, and requests as Lambda events."""
