"""MLServer: a custom runtime with its own adaptive batching, in the server's process."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from pathlib import Path

import mlserver
import numpy as np
from mlserver.codecs import NumpyCodec

sys.path.append(str(Path(__file__).resolve().parents[1]))
from encoder import Encoder, decode, read_npy


class EncoderRuntime(mlserver.MLModel):
    async def load(self) -> bool:
        self.encoder = Encoder()
        return True

    async def predict(self, payload: mlserver.types.InferenceRequest) -> mlserver.types.InferenceResponse:
        (given,) = payload.inputs
        latents = await asyncio.to_thread(self._encode, given)
        output = NumpyCodec.encode_output("latents", latents)
        return mlserver.types.InferenceResponse(model_name=self.name, outputs=[output])

    def _encode(self, given: mlserver.types.RequestInput) -> np.ndarray:
        if given.datatype == "BYTES":
            # Over HTTP bytes are base64; a tensor comes as one npy array.
            contents = [base64.b64decode(each) if isinstance(each, str) else each for each in given.data]
            is_tensor = contents[0].startswith(b"\x93NUMPY")
            return self.encoder(read_npy(contents[0]) if is_tensor else decode(contents))
        return self.encoder(NumpyCodec.decode_input(given))


def main(directory: Path, port: int, grpc_port: int) -> None:
    """Write the settings, and run the server in place of this process."""
    settings = {"http_port": port, "grpc_port": grpc_port, "metrics_port": grpc_port + 1000, "parallel_workers": 0}
    settings |= {"host": "127.0.0.1", "debug": False, "grpc_max_message_length": 2**30}
    (directory / "settings.json").write_text(json.dumps(settings))
    model = {"name": "encoder", "implementation": "app.EncoderRuntime", "max_batch_size": 64, "max_batch_time": 0.002}
    (directory / "model-settings.json").write_text(json.dumps(model))
    (directory / "app.py").symlink_to(Path(__file__).resolve())
    command = str(Path(sys.executable).with_name("mlserver"))
    os.execv(command, [command, "start", str(directory)])


if __name__ == "__main__":
    main(Path(sys.argv[3]), int(sys.argv[1]), int(sys.argv[2]))
