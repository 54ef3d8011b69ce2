"""Running the networks: ONNX Runtime in this process, or over BentoML in another."""
