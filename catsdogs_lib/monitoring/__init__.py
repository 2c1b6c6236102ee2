"""Monitoring after deployment: prediction records, drift since validation, and a report on the answers."""
