"""How good a model is, how sure of that one can be, and whether it may replace the champion."""
