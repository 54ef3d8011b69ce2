"""Translation only: requests in, answers and errors out, by HTTP or gRPC."""
