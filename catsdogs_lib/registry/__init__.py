"""MLflow: runs, registered models and promotion to champion."""
