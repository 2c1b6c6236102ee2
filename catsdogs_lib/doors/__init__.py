"""Local doors: the Lambda function behind a local address, a signing proxy to a deployed one, and a smoke test."""
