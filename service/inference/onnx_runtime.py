"""The networks as ONNX Runtime sessions over a bundle's graphs.

The sessions take tiles of at most `tile_rows` rows. An image's result depends neither on how many images come with it
nor on which: if the bits of a network depend on the size of a tile, which a check at start tells, all of its tiles are
padded to the same size. CPU and GPU share every line but the provider's options.
(What is particular to CUDA has not been run on a GPU yet.)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.bundle.manifest import DECODER, ENCODER, SALIENCY, SCREEN, Capabilities, Manifest
from service.bundle.store import Bundle
from service.core.detect.reconstruction import familiar_error, reconstruction_error
from service.core.types import Float32Array
from service.errors import AcceleratorMissing, BundleCorrupt, BundleIncompatible, BundleMissing
from service.images.spec import Uint8Array
from service.inference.adaptive_batches import Network, Outputs
from service.inference.backbone import BackboneHead, pad
from service.inference.hardware import has_gpu
from service.inference.protocol import CheckedLatents

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
TILE_ROWS = {CPU: 32, CUDA: 256}
# A backbone takes some 10 ms for an image: few images are shared among the threads, at no cost.
BACKBONE_TILE_ROWS = {CPU: 4, CUDA: 256}
# The sizes of tiles that are compared with a full one: kernels of matrix products take 1, 2, 3, ... or a dozen rows.
CHECKED_SIZES = (1, 2, 3, 5, 8, 13)
# What else runs the same graph. (A backbone has no graph for heat maps: they come from its encoder.)
DEPENDENT: dict[Network, tuple[Network, ...]] = {
    "encode": ("encode_checked", "encode_screened", "saliency"),
    "decode": ("encode_checked",),
    "saliency": (),
}
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
        names += [SCREEN] if manifest.screen is not None else []
        self._cutoff = np.inf if manifest.screen is None else manifest.screen.cutoff
        self._head = None if bundle.projection is None else BackboneHead(bundle.projection)
        self._familiarity = bundle.population.familiarity
        with_gpu = require_gpu or has_gpu()
        files = {name: bundle.directory / (bundle.encoder if name == ENCODER else name) for name in names}
        self._sessions = {name: open_session(file, with_gpu, name == ENCODER) for name, file in files.items()}
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
        self.tile_rows = (TILE_ROWS if self._head is None else BACKBONE_TILE_ROWS)[self.provider]
        self.threads = joblib.cpu_count() if self.provider == CPU else 1
        self._workers = ThreadPoolExecutor(self.threads, "tiles")
        self._padded: frozenset[Network] = frozenset(self._check_sizes(bundle))
        logger.info("%s (bundle %s) runs on %s", manifest.model, bundle.directory, self.provider)

    def _check_sizes(self, bundle: Bundle) -> Iterator[Network]:
        """Run every network on tiles of several sizes, which also warms it up. Yield those whose bits depend on it.

        Raises BundleCorrupt where the encoder's latents are not finite.
        """
        rng, manifest = np.random.default_rng(0), bundle.manifest
        images = rng.integers(0, 256, (self.tile_rows, *manifest.image.shape), np.uint8)
        if not np.isfinite(self._encode_tile(np.zeros_like(images[:1]))[0]).all():
            raise BundleCorrupt(
                f"{bundle.directory / ENCODER} turns a black image into latents that are not finite.",
                "The training has diverged: export another checkpoint.",
            )
        latents = rng.standard_normal((self.tile_rows, manifest.latent_dim), np.float32)
        networks: list[tuple[Network, NDArray[Any]]] = [("encode", images)]
        networks += [("decode", latents)] if self.capabilities.can_decode else []
        networks += [("saliency", images)] if SALIENCY in self._sessions else []
        for network, rows in networks:
            whole = self._tile_functions[network](rows)
            parts = ((self._tile_functions[network](rows[-size:]), size) for size in CHECKED_SIZES)
            # CUDA prepares itself for every size anew: there all tiles have one.
            if self.provider == CUDA or not all(_are_equal(part, whole, size) for part, size in parts):
                yield from (network, *DEPENDENT[network])

    def encode(self, images: Uint8Array) -> Float32Array:
        """Encode images, uint8 (N, H, W, C), to latents float32 (N, 2, L): mean, logvar."""
        (latents,) = self._run_tiles("encode", images)
        return latents

    def encode_checked(self, images: Uint8Array) -> CheckedLatents:
        """Encode images, uint8 (N, H, W, C), and measure how far each is from everything that the model knows.

        Raises BundleMissing where the bundle has neither a decoder nor a projection.
        """
        return CheckedLatents(*self._run_tiles("encode_checked", images))

    def encode_screened(self, images: Uint8Array) -> CheckedLatents:
        """Encode images as `encode_checked` does, and decode only those that the screen leaves open.

        Raises BundleMissing where the bundle has no screen.
        """
        return CheckedLatents(*self._run_tiles("encode_screened", images))

    def decode(self, latents: Float32Array) -> Uint8Array:
        """Decode latents, float32 (N, L), to images uint8 (N, H, W, C).

        Raises BundleMissing where the bundle has no decoder.
        """
        (images,) = self._run_tiles("decode", latents)
        return images

    def saliency(self, images: Uint8Array) -> Float32Array:
        """Return heat maps, float32 (N, L, h, w) with sign, of images uint8 (N, H, W, C).

        Raises BundleMissing where the bundle has no saliency graph.
        """
        (maps,) = self._run_tiles("saliency", images)
        return maps

    def run_tile(self, network: Network, tile: NDArray[Any]) -> Outputs:
        """Return the outputs of `network` for at most `tile_rows` rows, in this thread."""
        count = len(tile)
        outputs = self._tile_functions[network](pad(tile, self.computed_rows(network, count)))
        return tuple(output[:count] for output in outputs)

    def computed_rows(self, network: Network, rows: int) -> int:
        """Return how many rows are computed for a tile of `rows` rows: with padding, where `network` needs it."""
        return self.tile_rows if network in self._padded else rows

    @cached_property
    def _tile_functions(self) -> dict[Network, Callable[[NDArray[Any]], Outputs]]:
        return {
            "encode": self._encode_tile,
            "encode_checked": self._check_tile,
            "encode_screened": self._screen_tile,
            "decode": lambda tile: (_run(self._get_session(DECODER), "latents", tile),),
            "saliency": self._saliency_tile,
        }

    def _encode_tile(self, images: Uint8Array) -> tuple[Float32Array]:
        output = _run(self._get_session(ENCODER), "images", images)
        return (output if self._head is None else self._head.project(images, output, self.tile_rows)[0],)

    def _check_tile(self, images: Uint8Array) -> tuple[Float32Array, Float32Array]:
        output = _run(self._get_session(ENCODER), "images", images)
        if self._head is not None:
            return self._head.project(images, output, self.tile_rows)
        return output, self._measure_error(images, np.ascontiguousarray(output[:, 0]))

    def _screen_tile(self, images: Uint8Array) -> tuple[Float32Array, Float32Array]:
        latents, error = self._encode_tile(images)[0], np.full(len(images), np.nan, np.float32)
        means = np.ascontiguousarray(latents[:, 0])
        (coarse,) = self._get_session(SCREEN).run(None, {"images": images, "latents": means})
        left_open = ~(coarse <= self._cutoff)
        if left_open.any():
            error[left_open] = self._measure_error(images[left_open], means[left_open])
        return latents, error

    def _measure_error(self, images: Uint8Array, means: Float32Array) -> Float32Array:
        """Return the error (n,) of images (n, H, W, C) with the means (n, L), for at most `tile_rows` rows."""
        (decoded,) = self.run_tile("decode", means)
        if self._familiarity is None:
            return reconstruction_error(images, decoded).astype(np.float32)
        return familiar_error(images, decoded, self._familiarity).astype(np.float32)

    def _saliency_tile(self, images: Uint8Array) -> tuple[Float32Array]:
        if self._head is not None:
            features = _run(self._get_session(ENCODER), "images", images)
            return (self._head.saliency(pad(features, self.tile_rows)),)
        return (_run(self._get_session(SALIENCY), "images", images),)

    def _get_session(self, name: str) -> ort.InferenceSession:
        if name not in self._sessions:
            raise BundleMissing(f"The bundle has no {name}.", "Serve a bundle that has one: `capabilities` says it.")
        return self._sessions[name]

    def _run_tiles(self, network: Network, rows: NDArray[Any]) -> Outputs:
        """Return the outputs of `network` for `rows`, each tile in its own thread."""

        def run_tile(start: int) -> Outputs:
            return self.run_tile(network, rows[start : start + self.tile_rows])

        tiles = self._workers.map(run_tile, range(0, len(rows), self.tile_rows))
        return tuple(np.concatenate(outputs) for outputs in zip(*tiles, strict=True))


def _are_equal(outputs: Outputs, whole: Outputs, size: int) -> bool:
    """Return whether `outputs` are bit for bit the last `size` rows of `whole`."""
    return all(np.array_equal(part, output[-size:]) for part, output in zip(outputs, whole, strict=True))


def _run(session: ort.InferenceSession, name: str, tile: NDArray[Any]) -> NDArray[Any]:
    (result,) = session.run(None, {name: tile})
    return np.asarray(result)


def open_session(path: Path, with_gpu: bool, keeps_buffers: bool = True) -> ort.InferenceSession:
    """Open a graph, which `keeps_buffers` from one run to the next. Raises BundleCorrupt where ONNX Runtime cannot."""
    options = ort.SessionOptions()
    # One thread a tile, as many tiles at a time as there are CPUs. Several threads on one tile would meet after
    # every layer, and all wait, or spin, for the one whose CPU another process has.
    options.intra_op_num_threads = 1
    # A pattern of buffers for every number of rows takes tens of MiB, and saves no time.
    options.enable_mem_pattern, options.enable_cpu_mem_arena = False, keeps_buffers
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
        SCREEN: [
            ("images", "tensor(uint8)", image),
            ("latents", "tensor(float)", (latent_dim,)),
            ("error", "tensor(float)", ()),
        ],
    }[name]
    actual = [(tensor.name, tensor.type, tuple(tensor.shape[1:])) for tensor in tensors]
    if actual != expected or any(isinstance(tensor.shape[0], int) for tensor in tensors):
        raise BundleIncompatible(
            f"{name} maps {[(*entry[:2], tensor.shape) for entry, tensor in zip(actual, tensors, strict=True)]}; "
            f"the manifest calls for {expected} after a free batch axis.",
            "Graph and manifest are of different models, or of different versions: export the bundle again.",
        )
