"""Plots: data in, a matplotlib `Figure` out; no pyplot, no global state."""
