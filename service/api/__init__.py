"""The contract, the same for every transport: options, requests and answers as types."""
