"""One module for each notebook: what it does to a workspace, as functions."""
