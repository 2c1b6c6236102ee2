"""Endpoints, one module for each group: its routes, and their documentation in OpenAPI."""
