"""The networks as ONNX Runtime sessions over a bundle's graphs.

The sessions take tiles of one fixed number of rows, the last one padded: so an image's latents depend neither on how
many images come with it nor on which. CPU and GPU share every line but the provider's options.
(What is particular to CUDA has not been run on a GPU yet.)
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.bundle.manifest import DECODER, ENCODER, SALIENCY, Capabilities, Manifest
from service.bundle.store import Bundle
from service.core.detect.reconstruction import familiar_error, reconstruction_error
from service.core.types import Float32Array
from service.errors import AcceleratorMissing, BundleCorrupt, BundleIncompatible, BundleMissing
from service.images.spec import Uint8Array
from service.inference.backbone import BackboneHead
from service.inference.hardware import has_gpu
from service.inference.protocol import CheckedLatents

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
TILE_ROWS = {CPU: 32, CUDA: 256}
CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}

logger = logging.getLogger(__name__)


class OnnxNetworks:
    """The graphs of one bundle, verified against its manifest and warmed up. Calls block: `LocalNetworks` awaits.

    Raises BundleCorrupt, BundleIncompatible, or AcceleratorMissing (with `require_gpu` and no working GPU).
    """

    def __init__(self, bundle: Bundle, *, require_gpu: bool = False) -> None:
        manifest = bundle.manifest
        self.capabilities: Capabilities = manifest.capabilities
        names = [ENCODER]
        names += [DECODER] if self.capabilities.can_decode else []
        names += [SALIENCY] if SALIENCY in manifest.files else []
        self._head = None if bundle.projection is None else BackboneHead(bundle.projection)
        self._familiarity = bundle.population.familiarity
        with_gpu = require_gpu or has_gpu()
        self._sessions = {name: open_session(bundle.directory / name, with_gpu) for name in names}
        self.provider: str = self._sessions[ENCODER].get_providers()[0]
        if require_gpu and self.provider != CUDA:
            raise AcceleratorMissing(
                f"MISFIT_REQUIRE_GPU is set, but ONNX Runtime runs on {self.provider}.",
                'Install the CUDA libraries (pip install "misfit[cuda]", or make image VARIANT=gpu) and check the '
                "driver with nvidia-smi.",
            )
        if self.provider != CUDA and (with_gpu or find_spec("nvidia")):  # a GPU, or CUDA's libraries: one was meant
            logger.warning("no GPU can be used: the networks run on %s", self.provider)
        for name, session in self._sessions.items():
            _check_graph(session, name, manifest)
        self._tile_rows = TILE_ROWS[self.provider]
        self._workers = ThreadPoolExecutor(joblib.cpu_count() if self.provider == CPU else 1, "networks")
        self._warm_up(bundle)
        logger.info("%s (bundle %s) runs on %s", manifest.model, bundle.directory, self.provider)

    def _warm_up(self, bundle: Bundle) -> None:
        """Run every graph once. Raise BundleCorrupt where the encoder's latents are not finite."""
        black = np.zeros((1, *bundle.manifest.image.shape), dtype=np.uint8)
        latents = self.encode(black)
        if self.capabilities.can_decode:
            self.decode(np.zeros((1, bundle.manifest.latent_dim), dtype=np.float32))
        if self.capabilities.has_saliency:
            self.saliency(black)
        if not np.isfinite(latents).all():
            raise BundleCorrupt(
                f"{bundle.directory / ENCODER} turns a black image into latents that are not finite.",
                "The training has diverged: export another checkpoint.",
            )

    def encode(self, images: Uint8Array) -> Float32Array:
        """Encode images, uint8 (N, H, W, C), to latents float32 (N, 2, L): mean, logvar."""
        encoder, head = self._get_session(ENCODER), self._head

        def encode(tile: Uint8Array, rows: int) -> tuple[Float32Array]:
            output = _run(encoder, "images", tile)
            return (output if head is None else head.project(tile, output)[0],)

        (latents,) = self._run_tiles(encode, images)
        return latents

    def encode_checked(self, images: Uint8Array) -> CheckedLatents:
        """Encode images, uint8 (N, H, W, C), and measure how far each is from everything that the model knows.

        Raises BundleMissing where the bundle has neither a decoder nor a projection.
        """
        encoder, head = self._get_session(ENCODER), self._head
        if head is not None:
            return CheckedLatents(*self._run_tiles(partial(_project_checked, encoder, head), images))
        decoder, familiarity = self._get_session(DECODER), self._familiarity

        def check(tile: Uint8Array, rows: int) -> tuple[Float32Array, Float32Array]:
            latents = _run(encoder, "images", tile)
            decoded = _run(decoder, "latents", np.ascontiguousarray(latents[:, 0]))
            # Of the padding no error is wanted.
            if familiarity is None:
                return latents, reconstruction_error(tile[:rows], decoded[:rows]).astype(np.float32)
            return latents, familiar_error(tile[:rows], decoded[:rows], familiarity).astype(np.float32)

        return CheckedLatents(*self._run_tiles(check, images))

    def decode(self, latents: Float32Array) -> Uint8Array:
        """Decode latents, float32 (N, L), to images uint8 (N, H, W, C).

        Raises BundleMissing where the bundle has no decoder.
        """
        decoder = self._get_session(DECODER)
        (images,) = self._run_tiles(lambda tile, _: (_run(decoder, "latents", tile),), latents)
        return images

    def saliency(self, images: Uint8Array) -> Float32Array:
        """Return heat maps, float32 (N, L, h, w) with sign, of images uint8 (N, H, W, C).

        Raises BundleMissing where the bundle has no saliency graph.
        """
        if (head := self._head) is not None:
            encoder = self._get_session(ENCODER)
            (maps,) = self._run_tiles(lambda tile, _: (head.saliency(_run(encoder, "images", tile)),), images)
            return maps
        saliency = self._get_session(SALIENCY)
        (maps,) = self._run_tiles(lambda tile, _: (_run(saliency, "images", tile),), images)
        return maps

    def computed_rows(self, rows: int) -> int:
        """Return how many rows are computed for `rows` rows: padding fills the last tile."""
        return math.ceil(rows / self._tile_rows) * self._tile_rows

    def _get_session(self, name: str) -> ort.InferenceSession:
        if name not in self._sessions:
            raise BundleMissing(f"The bundle has no {name}.", "Serve a bundle that has one: `capabilities` says it.")
        return self._sessions[name]

    def _run_tiles(
        self, run: Callable[[NDArray[Any], int], tuple[NDArray[Any], ...]], rows: NDArray[Any]
    ) -> tuple[NDArray[Any], ...]:
        """Return the outputs of `run` for `rows`, tile by tile: each tile, the last one padded, in its own thread.

        `run` is told how many rows of its tile are no padding.
        """

        def run_tile(start: int) -> list[NDArray[Any]]:
            tile = rows[start : start + self._tile_rows]
            if padding := self._tile_rows - len(tile):
                tile = np.concatenate([tile, np.zeros((padding, *tile.shape[1:]), tile.dtype)])
            count = self._tile_rows - padding
            return [output[:count] for output in run(tile, count)]

        tiles = self._workers.map(run_tile, range(0, len(rows), self._tile_rows))
        return tuple(np.concatenate(outputs) for outputs in zip(*tiles, strict=True))


def _project_checked(
    encoder: ort.InferenceSession, head: BackboneHead, tile: Uint8Array, rows: int
) -> tuple[Float32Array, Float32Array]:
    """Return the latents (n, 2, L) of a tile, and how far off the collection's span its features are (n,)."""
    return head.project(tile, _run(encoder, "images", tile))


def _run(session: ort.InferenceSession, name: str, tile: NDArray[Any]) -> NDArray[Any]:
    (result,) = session.run(None, {name: tile})
    return np.asarray(result)


def open_session(path: Path, with_gpu: bool) -> ort.InferenceSession:
    """Open a graph. Raises BundleCorrupt where ONNX Runtime cannot."""
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
    """Raise BundleIncompatible unless the graph has the tensors that the manifest calls for."""
    image, latent_dim = manifest.image.shape, manifest.latent_dim
    tensors = [*session.get_inputs(), *session.get_outputs()]
    grid = tensors[-1].shape[-2:]  # of the heat maps: any size
    encoded = ("latents", "tensor(float)", (2, latent_dim))
    if manifest.kind == "backbone":
        encoded = ("features", "tensor(float)", tuple(tensors[-1].shape[1:]))  # the projection knows how many
    expected = {
        ENCODER: [("images", "tensor(uint8)", image), encoded],
        DECODER: [("latents", "tensor(float)", (latent_dim,)), ("images", "tensor(uint8)", image)],
        SALIENCY: [("images", "tensor(uint8)", image), ("saliency", "tensor(float)", (latent_dim, *grid))],
    }[name]
    actual = [(tensor.name, tensor.type, tuple(tensor.shape[1:])) for tensor in tensors]
    if actual != expected or any(isinstance(tensor.shape[0], int) for tensor in tensors):
        raise BundleIncompatible(
            f"{name} maps {[(*entry[:2], tensor.shape) for entry, tensor in zip(actual, tensors, strict=True)]}; "
            f"the manifest calls for {expected} after a free batch axis.",
            "Graph and manifest are of different models, or of different versions: export the bundle again.",
        )
