"""Add a picture decoder to a learned bundle: python -m export.decoder BUNDLE FOLDER

`misfit learn --decoder` runs this. The decoder is trained on the photographs of FOLDER, from which BUNDLE was learned:
its input is their latents. It draws pictures of 64 x 64 pixels, which the graph enlarges to the size of the bundle's
images. Interrupted, the same command goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from export import graphs
from export.parity import PIXELS_GREY_LEVELS, ParityError
from service.bundle import store
from service.bundle.manifest import DECODER, ImageSpec, Manifest
from service.bundle.store import Bundle
from service.errors import InvalidInput, MisfitError
from service.inference.backbone import BackboneHead
from service.inference.onnx_runtime import OnnxNetworks
from service.learning import card, folder
from train.models.latent_decoder import SIDE, LatentDecoder
from train.training import decoder as training
from train.training.decoder import Trained

# At most so many photographs are trained on: they are held in memory.
MOST_PHOTOGRAPHS = 20_000
READ_AT_A_TIME = 128
PARITY_SIZES = (1, 2, 33)
INTERRUPTED = 130
SPEC = ImageSpec(height=SIDE, width=SIDE, channels=3)


class _Drawing(nn.Module):
    """Latents to pictures of the bundle's size, uint8 (N, H, W, 3)."""

    def __init__(self, decoder: LatentDecoder, image: ImageSpec) -> None:
        super().__init__()
        self.decoder = decoder
        self.size = (image.height, image.width)

    def forward(self, latents: Tensor) -> Tensor:
        pictures: Tensor = self.decoder(latents).sigmoid()
        if self.size != (SIDE, SIDE):
            pictures = functional.interpolate(pictures, size=self.size, mode="bilinear", align_corners=False)
        grey_levels = (pictures * 255).round().clamp(0, 255).to(torch.uint8)
        return grey_levels.permute(0, 2, 3, 1)


def add_decoder(directory: Path, source: Path, *, steps: int = training.STEPS) -> Bundle | None:
    """Train a decoder on the photographs of `source`, and write the bundle at `directory` again with it.

    Returns None where SIGTERM or Ctrl-C stopped the training: a checkpoint is kept beside the bundle.
    Raises InvalidInput where the bundle is of another kind or there are too few photographs, ParityError where ONNX
    Runtime and PyTorch differ, and what `store.load` raises. After an error the bundle stays as it is.
    """
    bundle = store.load(directory)
    if bundle.projection is None:
        raise InvalidInput(
            f"{directory} is a bundle of kind {bundle.manifest.kind}; a decoder is trained for one that "
            "`misfit learn` has written.",
            "Name the directory that was given to --out.",
        )
    latents, images, digest = _read(bundle, source)
    scratch = bundle.directory.resolve().parent / f".{bundle.directory.resolve().name}.decoder-{digest[:12]}-{steps}"
    scratch.mkdir(exist_ok=True)
    with _Signals() as signals, tqdm(total=steps, desc="training the decoder", unit="step", mininterval=2) as bar:

        def show(step: int) -> None:
            bar.update(step - bar.n)
            bar.initial = bar.initial or step - 1  # after a resume the estimate is of the steps taken now

        trained = training.train_decoder(
            latents, images, scratch / "checkpoint.pt", steps=steps, progress=show, should_stop=lambda: signals.stopped
        )
    if trained is None:
        return None
    module = _Drawing(trained.decoder, bundle.manifest.image).eval()
    graph = graphs.export(module, (torch.from_numpy(latents[:2]),), ("latents",), "images")
    difference = _pixel_difference(module, graph, latents)
    written = store.extend(
        bundle,
        {DECODER: graph},
        lambda manifest: _described(manifest, trained, difference, len(images), steps),
        card.write_card,
    )
    shutil.rmtree(scratch, ignore_errors=True)
    return written


def _read(bundle: Bundle, source: Path) -> tuple[NDArray[np.float32], NDArray[np.uint8], str]:
    """Return latents (n, L) and pictures (n, SIDE, SIDE, 3) of the folder's photographs, and a hash of both."""
    files = folder.find(source, apart_from=bundle.directory)
    random = np.random.default_rng(0)
    files = [files[row] for row in random.permutation(len(files))[:MOST_PHOTOGRAPHS]]
    assert bundle.projection is not None, "only learned bundles are drawn for"
    networks, head = OnnxNetworks(bundle), BackboneHead(bundle.projection)
    latents, images = [], []
    for start in tqdm(range(0, len(files), READ_AT_A_TIME), "reading photographs", mininterval=2):
        part = files[start : start + READ_AT_A_TIME]
        photographs = folder.read(part, bundle.manifest.image)
        small = folder.read([part[position] for position in photographs.read], SPEC).pixels
        if len(small):
            encoded = networks.encode(photographs.pixels)
            latents.append(head.with_files(encoded, photographs.sizes)[:, 0])
            images.append(small)
    count = sum(map(len, images))
    if count < training.HELD_OUT * 2:
        raise InvalidInput(
            f"{source} holds {count} photographs that can be read; a decoder needs at least {training.HELD_OUT * 2}.",
            "Name the folder that the bundle was learned from.",
        )
    known, pictures = np.concatenate(latents), np.concatenate(images)
    return known, pictures, hashlib.sha256(known.tobytes() + pictures.tobytes()).hexdigest()


def _pixel_difference(module: nn.Module, graph: bytes, latents: NDArray[np.float32]) -> int:
    """Return the largest difference, in grey levels, of ONNX Runtime's pictures from PyTorch's. Raises ParityError."""
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    largest = 0
    for size in PARITY_SIZES:
        rows = latents[np.arange(size) % len(latents)]
        with torch.inference_mode():
            expected = module(torch.from_numpy(rows)).numpy()
        (actual,) = session.run(None, {"latents": rows})
        if actual.shape != expected.shape or actual.dtype != expected.dtype:
            raise ParityError(f"the decoder gave {actual.dtype} {actual.shape}, PyTorch {expected.shape}")
        largest = max(largest, int(np.abs(actual.astype(np.int16) - expected).max()))
    if largest > PIXELS_GREY_LEVELS:
        raise ParityError(f"pictures differ by {largest} grey levels between PyTorch and ONNX Runtime")
    return largest


def _described(manifest: Manifest, trained: Trained, difference: int, photographs: int, steps: int) -> Manifest:
    """Return the manifest with what is known of the decoder."""
    parity = manifest.parity.model_copy(update={"batch_sizes": PARITY_SIZES, "pixels_grey_levels": difference})
    recipe = {"side": SIDE, "steps": steps, "photographs": photographs, "torch": str(torch.__version__)}
    return manifest.model_copy(
        update={
            "parity": parity,
            "metrics": {**manifest.metrics, "decoder": trained.metrics},
            "training": {**manifest.training, "decoder": recipe},
        }
    )


class _Signals:
    """SIGTERM and Ctrl-C, as a question that is asked after every step."""

    def __init__(self) -> None:
        self.stopped = False

    def __enter__(self) -> _Signals:
        self._before = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True


def main(arguments: Sequence[str] | None = None) -> int:
    """Add a decoder and return the exit code: 0, 1 for an error that the message explains, or 130 if interrupted."""
    parser = argparse.ArgumentParser(prog="python -m export.decoder", description=__doc__)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="written by `misfit learn`")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="that the bundle was learned from")
    parser.add_argument("--steps", type=int, default=training.STEPS, help=f"of training (default: {training.STEPS:,})")
    options = parser.parse_args(arguments)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    started = time.perf_counter()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # while photographs are read
    try:
        written = add_decoder(options.bundle, options.folder, steps=options.steps)
    except MisfitError as error:
        print(f"error: {error.message} {error.hint}".rstrip(), file=sys.stderr)
        return 1
    except (ParityError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        written = None
    finally:
        signal.signal(signal.SIGTERM, before)
    if written is None:
        print("interrupted: the same command goes on from the last checkpoint", file=sys.stderr)
        return INTERRUPTED
    measured = written.manifest.metrics["decoder"]
    assert isinstance(measured, dict)
    print(
        f"{options.bundle} draws pictures now, after {time.perf_counter() - started:.0f} s: SSIM {measured['ssim']}, "
        f"error {measured['absolute_error_grey_levels']} grey levels on {measured['held_out']} photographs that were "
        "held out"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
