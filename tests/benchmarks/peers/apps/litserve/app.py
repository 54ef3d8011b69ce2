"""LitServe: two workers on the CPU, its own batching of requests. (LitServe reads annotations: they stay no texts.)"""

import binascii
import sys
from pathlib import Path

import litserve
import numpy as np
from starlette.requests import Request
from starlette.responses import Response

sys.path.append(str(Path(__file__).resolve().parents[1]))
from encoder import THREADS, Encoder, decode, read_npy, write_npy


class EncoderAPI(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.encoder = Encoder()

    def decode_request(self, request: Request) -> np.ndarray:
        """Read {"array": base64 of npy} or {"files": [base64, ...]}: LitServe hands JSON to its workers."""
        if "array" in request:
            return read_npy(binascii.a2b_base64(request["array"]))
        return decode([binascii.a2b_base64(file) for file in request["files"]])

    def batch(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        return inputs

    def predict(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        latents = self.encoder(np.concatenate(inputs))
        return np.split(latents, np.cumsum([len(images) for images in inputs])[:-1])

    def unbatch(self, output: list[np.ndarray]) -> list[np.ndarray]:
        return output

    def encode_response(self, output: np.ndarray) -> Response:
        return Response(write_npy(output), media_type="application/x-npy")


def serve(api_class: type[litserve.LitAPI]) -> None:
    api = api_class(max_batch_size=16, batch_timeout=0.002, api_path="/encode")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=THREADS)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)


if __name__ == "__main__":
    serve(EncoderAPI)
