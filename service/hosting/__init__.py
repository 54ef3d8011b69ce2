"""Everything that uses private parts of BentoML, circus, uvicorn and prometheus_client."""
