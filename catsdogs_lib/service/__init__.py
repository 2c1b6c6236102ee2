"""The endpoint: Starlette answers for a bundle, FastAPI describes it; under uvicorn and on Lambda alike."""
