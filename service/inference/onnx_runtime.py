"""The networks: ONNX Runtime sessions over a bundle's graphs, and what their results depend on.

Rows go through in tiles of one fixed size, the last one padded: an image's latents then depend neither
on how many images come with it nor on which. CPU and GPU share every line but the provider's options.
(What is particular to CUDA has not been run on a GPU yet.)
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.bundle.manifest import SALIENCY, Manifest
from service.bundle.store import Bundle
from service.core.detect.ood import reconstruction_error
from service.core.types import Float32Array
from service.errors import AcceleratorMissing, BundleCorrupt, BundleIncompatible, BundleMissing
from service.images.spec import Uint8Array
from service.inference.hardware import cpu_count, has_gpu

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
TILE_ROWS = {CPU: 32, CUDA: 256}
CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}

logger = logging.getLogger(__name__)


class Networks:
    """Encoder, decoder and (where it has them) heat maps of one bundle, verified against its manifest and warmed up.

    Raises BundleCorrupt, BundleIncompatible, or AcceleratorMissing (with `require_gpu` and no working GPU).
    """

    def __init__(self, bundle: Bundle, *, require_gpu: bool = False) -> None:
        image, latent_dim = bundle.manifest.image, bundle.manifest.latent_dim
        with_gpu = require_gpu or has_gpu()
        self._encoder = _open(bundle.directory / "encoder.onnx", with_gpu)
        self._decoder = _open(bundle.directory / "decoder.onnx", with_gpu)
        self._saliency = _open(bundle.directory / SALIENCY, with_gpu) if bundle.manifest.has_saliency else None
        self.provider: str = self._encoder.get_providers()[0]
        if require_gpu and self.provider != CUDA:
            raise AcceleratorMissing(
                f"MISFIT_REQUIRE_GPU is set, but ONNX Runtime runs on {self.provider}.",
                'Install the CUDA libraries (pip install "misfit[cuda]", or make image VARIANT=gpu) and check the '
                "driver with nvidia-smi.",
            )
        if self.provider != CUDA and (with_gpu or find_spec("nvidia")):  # a GPU, or CUDA's libraries: one was meant
            logger.warning("no GPU can be used: the networks run on %s", self.provider)
        _check_graph(self._encoder, "encoder.onnx", bundle.manifest)
        _check_graph(self._decoder, "decoder.onnx", bundle.manifest)
        if self._saliency is not None:
            _check_graph(self._saliency, SALIENCY, bundle.manifest)
        self._tile_rows = TILE_ROWS[self.provider]
        self._workers = ThreadPoolExecutor(cpu_count() if self.provider == CPU else 1, "networks")
        black = np.zeros((1, *image.shape), dtype=np.uint8)
        latents = self.encode(black)
        self.decode(np.zeros((1, latent_dim), dtype=np.float32))
        if self.has_saliency:
            self.saliency(black)
        if not np.isfinite(latents).all():
            raise BundleCorrupt(
                f"{bundle.directory / 'encoder.onnx'} turns a black image into latents that are not finite.",
                "The training has diverged: export another checkpoint.",
            )
        logger.info("%s (bundle %s) runs on %s", bundle.manifest.model, bundle.directory, self.provider)

    def encode(self, images: Uint8Array) -> Float32Array:
        """`images` uint8 (N, H, W, C) to latents float32 (N, 2, L): mean, logvar."""
        return self._tiled(lambda tile: _run(self._encoder, "images", tile), images)

    def encode_checked(self, images: Uint8Array) -> Float32Array:
        """`images` uint8 (N, H, W, C) to float32 (N, 2L + 1): the latents of `encode`, mean by mean and logvar by
        logvar, and the reconstruction error of the picture that is decoded from the means.
        """

        def look(tile: Uint8Array) -> Float32Array:
            latents = _run(self._encoder, "images", tile)
            decoded = _run(self._decoder, "latents", np.ascontiguousarray(latents[:, 0]))
            error = reconstruction_error(tile, decoded)
            return np.column_stack([latents.reshape(len(tile), -1), error]).astype(np.float32)

        return self._tiled(look, images)

    def decode(self, latents: Float32Array) -> Uint8Array:
        """`latents` float32 (N, L) to images uint8 (N, H, W, C)."""
        return self._tiled(lambda tile: _run(self._decoder, "latents", tile), latents)

    def computed(self, rows: int) -> int:
        """How many rows are computed for `rows` rows: padding fills the last tile."""
        return math.ceil(rows / self._tile_rows) * self._tile_rows

    @property
    def has_saliency(self) -> bool:
        return self._saliency is not None

    def saliency(self, images: Uint8Array) -> Float32Array:
        """`images` uint8 (N, H, W, C) to heat maps float32 (N, L, h, w), with their sign.

        Raises BundleMissing where the bundle has no such graph: `has_saliency` tells.
        """
        saliency = self._saliency
        if saliency is None:
            raise BundleMissing(f"The bundle has no {SALIENCY}.", "Export it again with this version of misfit.")
        return self._tiled(lambda tile: _run(saliency, "images", tile), images)

    def _tiled(self, work: Callable[[NDArray[Any]], NDArray[Any]], rows: NDArray[Any]) -> NDArray[Any]:
        """What `work` makes of `rows`, tile by tile: each tile, the last one padded, in a thread of its own."""

        def run_tile(start: int) -> NDArray[Any]:
            tile = rows[start : start + self._tile_rows]
            if padding := self._tile_rows - len(tile):
                tile = np.concatenate([tile, np.zeros((padding, *tile.shape[1:]), tile.dtype)])
            return work(tile)[: self._tile_rows - padding]

        return np.concatenate(list(self._workers.map(run_tile, range(0, len(rows), self._tile_rows))))


def _run(session: ort.InferenceSession, name: str, tile: NDArray[Any]) -> NDArray[Any]:
    (result,) = session.run(None, {name: tile})
    return np.asarray(result)


def _open(path: Path, with_gpu: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    # One thread a tile, as many tiles at a time as there are CPUs. Several threads on one tile would meet after
    # every layer, and all wait, or spin, for the one whose CPU another process has.
    options.intra_op_num_threads = 1
    providers: list[object] = [CPU]
    if with_gpu and CUDA in ort.get_available_providers():
        ort.preload_dlls()
        providers.insert(0, (CUDA, CUDA_OPTIONS))
    try:
        session = ort.InferenceSession(path, options, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions share no base but this
        raise BundleCorrupt(f"{path} cannot be opened: {error}.", "Export the bundle again.") from error
    session.disable_fallback()
    return session


def _check_graph(session: ort.InferenceSession, name: str, manifest: Manifest) -> None:
    """Raises BundleIncompatible unless the graph's tensors are those that its manifest speaks of."""
    image, latent_dim = manifest.image.shape, manifest.latent_dim
    tensors = [*session.get_inputs(), *session.get_outputs()]
    grid = tensors[-1].shape[-2:]  # of the heat maps: the graph's own affair
    expected = {
        "encoder.onnx": [("images", "tensor(uint8)", image), ("latents", "tensor(float)", (2, latent_dim))],
        "decoder.onnx": [("latents", "tensor(float)", (latent_dim,)), ("images", "tensor(uint8)", image)],
        SALIENCY: [("images", "tensor(uint8)", image), ("saliency", "tensor(float)", (latent_dim, *grid))],
    }[name]
    found = [(tensor.name, tensor.type, tuple(tensor.shape[1:])) for tensor in tensors]
    if found != expected or any(isinstance(tensor.shape[0], int) for tensor in tensors):
        raise BundleIncompatible(
            f"{name} maps {[(*entry[:2], tensor.shape) for entry, tensor in zip(found, tensors, strict=True)]}; "
            f"the manifest calls for {expected} after a free batch axis.",
            "Graph and manifest are of different models, or of different versions: export the bundle again.",
        )
