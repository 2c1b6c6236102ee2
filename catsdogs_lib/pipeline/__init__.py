"""The pipeline: workspace, parameters, notebook execution, the DVC graph and its stages."""
