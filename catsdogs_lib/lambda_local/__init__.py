"""A local Function URL for development: events, limits and processes as on AWS."""
