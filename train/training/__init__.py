"""The training loop, its checkpoints and the memory allocator's setting."""
