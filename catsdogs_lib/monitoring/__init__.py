"""After deployment: records of answers, what has changed since validation, and how good the answers are now."""
