"""Write, load and verify a bundle: one directory with everything that the service needs of one trained model.

    manifest.json    what the model is, and the sha256 of every other file
    encoder.onnx     `images` uint8 (N, H, W, C) -> `latents` float32 (N, 2, L): mean, logvar
    encoder.int8.onnx  the same, most of it in int8: optional
    decoder.onnx     `latents` float32 (N, L) -> `images` uint8 (N, H, W, C): optional
    saliency.onnx    `images` uint8 (N, H, W, C) -> `saliency` float32 (N, L, h, w): optional
    screen.onnx      `images` uint8 (N, H, W, C), `latents` float32 (N, L) -> `error` float32 (N,): optional
    population.npz   the latents of the training population, and how well its images are redrawn
    projection.npz   of a backbone bundle, whose encoder.onnx gives `features` float32 (N, C, h, w): how they become
                     latents
    README.md        the model card, for people: no hash covers it, and it may be edited
    names.json       names that the owner gives to latents, {"content 3": "hands"}: optional, and no hash covers it

`export` writes bundles and `service` reads them, both through this module alone. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import StringConstraints, TypeAdapter, ValidationError

from service.bundle import projection_file
from service.bundle.manifest import (
    ENCODER,
    ENCODER_INT8,
    FORMAT_VERSION,
    SCREEN,
    Int8,
    Int8Loss,
    Manifest,
    Screen,
    Version,
)
from service.bundle.population_file import POPULATION, from_npz, to_npz
from service.bundle.projection_file import PROJECTION, Projection
from service.core.population import DEAD_VARIANCE, Population
from service.errors import BundleCorrupt, BundleIncompatible, BundleMissing

MANIFEST = "manifest.json"
CARD = "README.md"
NAMES = "names.json"
REQUIRED_FILES = (ENCODER, POPULATION)

# What the encoder computes in. What it is in float32 and in int8 has ids of its own: latents differ.
Precision = Literal["auto", "fp32", "int8"]
OwnName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80)]


@dataclass(frozen=True)
class Bundle:
    """A bundle that passed every check of `load`. Only backbone bundles have a projection.

    encoder      the file of the encoder that runs: of float32 or int8
    other_id     the bundle_id where the other one of the two runs, None where there is none
    """

    directory: Path
    manifest: Manifest
    population: Population
    projection: Projection | None = None
    encoder: str = ENCODER
    other_id: str | None = None


def write(
    directory: Path,
    manifest: Manifest,
    files: Mapping[str, bytes],
    population: Population,
    card: str = "",
    unhashed: Mapping[str, bytes] = MappingProxyType({}),
) -> Bundle:
    """Write a bundle, after reading it back: either the whole bundle or nothing.

    `files` maps names to contents: the ONNX graphs, and what else belongs to the bundle; `unhashed` those that may be
    edited afterwards. `manifest.files` and `manifest.bundle_id` are filled in here. A bundle that exists at `directory`
    is replaced, with its model card.
    Raises FileExistsError where `directory` holds anything but a bundle, and what `load` raises.
    """
    directory = directory.resolve()
    check_writable(directory)
    contents = {**files, POPULATION: to_npz(population)}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    # A screen and an int8 encoder belong to one encoder: they are kept only where they come along.
    left_out = {field: None for field, name in (("screen", SCREEN), ("int8", ENCODER_INT8)) if name not in unhashed}
    manifest = manifest.model_copy(update={"files": hashes, **left_out})
    manifest = manifest.model_copy(update={"bundle_id": manifest.content_hash()})
    contents |= unhashed
    contents[MANIFEST] = (manifest.model_dump_json(indent=2) + "\n").encode()
    if card:
        contents[CARD] = card.encode()
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as scratch:
        complete = Path(scratch, "complete")
        complete.mkdir()
        for name, content in contents.items():
            (complete / name).write_bytes(content)
        bundle = load(complete)
        if directory.exists():
            directory.rename(Path(scratch, "replaced"))
        complete.rename(directory)
    return replace(bundle, directory=directory)


def extend(
    bundle: Bundle,
    files: Mapping[str, bytes],
    describe: Callable[[Manifest], Manifest],
    write_card: Callable[[Manifest, Population], str],
) -> Bundle:
    """Write a bundle again with more files: `describe` returns its manifest with what is to be said of them.

    Names that its owner gave to latents are kept. Raises what `write` raises.
    """
    directory = bundle.directory
    own_names = directory / NAMES
    manifest = describe(read_manifest(directory))  # as it was written, without own names
    kept = {name: _read(directory / name) for name in manifest.files if name != POPULATION}
    names = {NAMES: own_names.read_bytes()} if own_names.exists() else {}
    card = write_card(manifest, bundle.population)
    return write(directory, manifest, {**kept, **files}, bundle.population, card, unhashed=names)


def add_screen(bundle: Bundle, graph: bytes, cutoff: float) -> Bundle:
    """Write a bundle again with a screen, `graph`: the bundle_id stays. Raises what `write` raises."""
    screen = Screen(sha256=hashlib.sha256(graph).hexdigest(), cutoff=cutoff)
    return _add_beside(bundle, SCREEN, graph, {"screen": screen})


def add_int8(bundle: Bundle, graph: bytes, difference: float, loss: Int8Loss | None) -> Bundle:
    """Write a bundle again with an int8 encoder, `graph`, and what was measured of it: see `Int8`.

    The bundle_id stays. Raises what `write` raises.
    """
    int8 = Int8(sha256=hashlib.sha256(graph).hexdigest(), difference=difference, loss=loss)
    return _add_beside(bundle, ENCODER_INT8, graph, {"int8": int8})


def _add_beside(bundle: Bundle, name: str, graph: bytes, update: dict[str, object]) -> Bundle:
    """Write a bundle again with a graph that its id does not cover; `update` tells of it in the manifest."""
    directory = bundle.directory
    manifest = read_manifest(directory)
    kept = {file: _read(directory / file) for file in manifest.files if file != POPULATION}
    beside = (*_beside(manifest), *(file for file in (CARD, NAMES) if (directory / file).exists()))
    contents = {**{file: _read(directory / file) for file in beside}, name: graph}
    return write(directory, manifest.model_copy(update=update), kept, bundle.population, unhashed=contents)


def _beside(manifest: Manifest) -> dict[str, str]:
    """Return the sha256 of the files that the bundle_id does not cover, by name."""
    screens = {} if manifest.screen is None else {SCREEN: manifest.screen.sha256}
    return screens if manifest.int8 is None else {**screens, ENCODER_INT8: manifest.int8.sha256}


def check_writable(directory: Path) -> None:
    """Raise FileExistsError where `directory` holds anything but a bundle."""
    if directory.exists() and not directory.is_dir():
        raise FileExistsError(f"{directory} is a file. Name a directory.")
    if directory.exists() and any(directory.iterdir()) and not (directory / MANIFEST).exists():
        raise FileExistsError(
            f"{directory} holds files but no {MANIFEST}: it is not a bundle and is left alone. "
            "Name a new or empty directory, or an older bundle to replace."
        )


def load(directory: Path, precision: Precision = "fp32") -> Bundle:
    """Read and verify the bundle at `directory`, to be run in `precision`; "auto" is int8 where that loses nothing.

    `service.inference.precision` tells as well whether this machine computes int8 as it should.

    Raises BundleMissing, BundleCorrupt or BundleIncompatible, with what is wrong and where. The graphs' tensors are
    checked when the graphs are opened, in `service/inference/onnx_runtime.py`.
    """
    manifest = read_manifest(directory)
    required = (*REQUIRED_FILES, PROJECTION) if manifest.kind == "backbone" else REQUIRED_FILES
    for name in required:
        if name not in manifest.files:
            raise BundleCorrupt(
                f"{directory / MANIFEST} does not list {name}.",
                f"A bundle of version {FORMAT_VERSION} lists {', '.join(required)}: export it again.",
            )
    for name, expected in (manifest.files | _beside(manifest)).items():
        digest = hashlib.sha256(_read(directory / name)).hexdigest()
        if digest != expected:
            raise BundleCorrupt(
                f"{directory / name} has sha256 {digest}, but the manifest promises {expected}.",
                "The file was changed or cut short after the export: copy the bundle again.",
            )
    if manifest.content_hash() != manifest.bundle_id:
        raise BundleCorrupt(
            f"{directory / MANIFEST} says bundle_id {manifest.bundle_id!r}, but its content hashes to "
            f"{manifest.content_hash()!r}.",
            "The manifest was edited after the export: copy the bundle again.",
        )
    population = from_npz(_read(directory / POPULATION), manifest.latent_dim)
    dead = sorted(set(range(manifest.latent_dim)) - set(population.live_dims.tolist()))
    if dead != list(manifest.dead_dims):
        raise BundleCorrupt(
            f"{directory / MANIFEST} calls the latents {list(manifest.dead_dims)} dead, but over the "
            f"{POPULATION} it is {dead} that vary by less than {DEAD_VARIANCE}.",
            "Export the bundle again.",
        )
    projection = None
    if manifest.kind == "backbone":
        measured = sum(latent.unit is not None for latent in manifest.latents)
        projection = projection_file.from_npz(_read(directory / PROJECTION), manifest.latent_dim, measured)
    manifest, int8 = _with_own_names(directory, manifest), manifest.int8
    other_id = None if int8 is None else manifest.in_int8().bundle_id
    bundle = Bundle(directory, manifest, population, projection, other_id=other_id)
    if precision == "int8" and int8 is None:
        raise BundleIncompatible(
            f"MISFIT_PRECISION is int8, but {directory} has no {ENCODER_INT8}.",
            "Add one with `python -m export.int8 BUNDLE`, or serve it with MISFIT_PRECISION=fp32.",
        )
    if precision == "fp32" or int8 is None or (precision == "auto" and not int8.loses_nothing):
        return bundle
    return replace(bundle, manifest=manifest.in_int8(), encoder=ENCODER_INT8, other_id=manifest.bundle_id)


def _with_own_names(directory: Path, manifest: Manifest) -> Manifest:
    """Return the manifest with the latents named as the file NAMES says, if there is one. The bundle_id stays."""
    path = directory / NAMES
    if not path.exists():
        return manifest
    hint = f'It holds new names by old ones, such as {{"{manifest.latents[0].name}": "hands"}}.'
    try:
        names = TypeAdapter(dict[str, OwnName]).validate_json(path.read_bytes())
    except ValidationError as error:
        raise BundleCorrupt(f"{path} cannot be used: {error.errors(include_url=False)[0]['msg']}.", hint) from error
    known = [latent.name for latent in manifest.latents]
    if unknown := sorted(set(names) - set(known)):
        raise BundleCorrupt(f"{path} names {unknown[0]!r}, which is no latent of this bundle.", hint)
    latents = tuple(
        latent.model_copy(update={"name": names[latent.name]}) if latent.name in names else latent
        for latent in manifest.latents
    )
    if len({latent.name for latent in latents}) != len(latents):
        raise BundleCorrupt(f"{path} gives two latents one name.", "Latent names must differ from each other.")
    return manifest.model_copy(update={"latents": latents})


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleMissing(
            f"{path} cannot be read: {error.strerror}.",
            "Point MISFIT_BUNDLE at a directory that `python -m export` has written.",
        ) from error


def read_manifest(directory: Path) -> Manifest:
    """Return the manifest of the bundle at `directory`; no other file of it is read. Raises what `load` raises."""
    content = _read(directory / MANIFEST)
    try:
        version = Version.model_validate_json(content).format_version
        if version != FORMAT_VERSION:
            raise BundleIncompatible(
                f"{directory / MANIFEST} has format_version {version}; this misfit reads {FORMAT_VERSION}.",
                "Export the model again with this version, or serve it with the version that wrote it.",
            )
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "its content"
        raise BundleCorrupt(
            f"{directory / MANIFEST} is not a valid manifest: {where}: {fault['msg']}.",
            "Export the bundle again.",
        ) from error
