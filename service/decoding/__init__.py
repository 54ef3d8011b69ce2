"""Image files decoded in worker processes, within limits of memory and CPU."""
