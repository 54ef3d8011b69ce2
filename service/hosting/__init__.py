"""Everything that touches private parts of BentoML, circus and uvicorn."""
