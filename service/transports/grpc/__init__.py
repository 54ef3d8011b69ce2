"""gRPC: messages to requests, answers to messages."""
