"""The endpoint: a FastAPI application that answers for a bundle, under uvicorn and on Lambda alike."""
