"""Learn a folder: features by a backbone, axes and population by statistics, and a bundle that the service serves."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from service.bundle import projection_file, store
from service.bundle.backbone_file import PROVENANCE
from service.bundle.manifest import ENCODER, FORMAT_VERSION, Manifest, Parity
from service.bundle.projection_file import PROJECTION, Projection
from service.bundle.store import Bundle
from service.core.axes import FeatureMoments, crowd_distances, directions, locality_preserving, residuals
from service.core.distributions import normal_deviation
from service.core.latent import CONTENT, Latent, content_name
from service.core.population import DEAD_VARIANCE, Familiarity, Population
from service.core.types import EstimatorName, Float64Array, IndexArray
from service.errors import InvalidInput, readable
from service.images.properties import FILE_PROPERTIES, PIXEL_PROPERTIES, PROPERTIES
from service.images.reading import Reading
from service.inference.backbone import BackboneHead
from service.inference.features import FeatureNetwork
from service.learning import card, folder
from service.learning.feature_cache import FeatureCache, Tile

# Fewer photographs say too little about what is usual.
FEWEST = 50
AXES = 12
# Principal axes that content latents are chosen from, and how many photographs each of either kind needs.
PRINCIPAL, PHOTOGRAPHS_A_PRINCIPAL, PHOTOGRAPHS_AN_AXIS = 128, 3, 8
# Photographs among which neighbours are looked for.
NEIGHBOURHOOD = 4_000
# There may be strangers among the learned photographs: the loneliest of them take no part in what the others span.
# Lonely are those that are far from the nearest crowd among so many photographs.
LONELY, CROWDED = 0.05, 2_000
# Photographs are dealt to so many parts: how far off each part lies is measured by the others.
FOLDS = 3
# How exactly a latent is known, as a share of its variance over the collection. Properties count for less than content:
# they say how a picture looks, not what it shows.
CONTENT_VARIANCE, PROPERTY_VARIANCE = 0.3, 0.5
# Of each property. Photographs of one camera have files of one size, but for what was cut off by hand.
LEAST_SPREAD = np.repeat([0.0, 0.05], [len(PIXEL_PROPERTIES), len(FILE_PROPERTIES)])
HIGH = 0.999
# For the strangers' sake, the direction's reach, by its logarithm, is at most so many robust standard deviations.
MOST_DEVIATIONS = 4.75
# A property reaches at least so many spreads, however much alike the learned photographs are.
LEAST_REACH, PROPERTY_HIGH = 4.0, 0.9997
# Photographs that were not learned reach a little further than those that were.
REACH_MARGIN = 1.15
SEED = 0
ESTIMATOR: EstimatorName = "density_ratio"


@dataclass(frozen=True)
class Learned:
    """The bundle, and what could not be read: path and reason."""

    bundle: Bundle
    photographs: int
    unreadable: list[tuple[Path, str]]
    warnings: list[str]


def learn(
    source: Path,
    out: Path,
    *,
    backbone: Path,
    axes: int = AXES,
    progress: Callable[[int], None] = lambda done: None,
    started: Callable[[int], None] = lambda total: None,
) -> Learned:
    """Learn the photographs of the tree below `source` and write a verified bundle to `out`.

    `started` is told the number of files, `progress` every number that is done. Interrupted, the next call goes on.

    Raises InvalidInput (no photographs, too few, all alike), FileExistsError where `out` holds anything but a bundle,
    and what FeatureNetwork raises.
    """
    # As in serving: beside other work, BLAS threads wait for each other longer than they compute.
    threadpool_limits(limits=1, user_api="blas")
    files = folder.find(source, apart_from=out)
    network = FeatureNetwork(backbone)
    store.check_writable(out)
    reading = Reading.of_files(files, network.image, folder.LIMITS)
    cache = FeatureCache.beside(out, files, reading.samples, backbone)
    started(len(files))
    cache.fill(network, progress)
    names = [readable(str(file)) for file in files]
    for tile in cache.tiles():
        reading.note(names, tile.notes, len(tile.positions))
    unreadable = [(files[position], error) for tile in cache.tiles() for position, error in tile.errors.items()]
    count = len(files) - len(unreadable)
    if count < FEWEST:
        raise InvalidInput(
            f"{source} holds {count} photographs that can be read"
            + (f", and {len(unreadable)} files that cannot ({unreadable[0][1]})" if unreadable else "")
            + f"; at least {FEWEST} are needed.",
            "Add photographs of the same kind, or score them without learning by a shipped bundle.",
        )
    projection, folds = _fit_projection(cache, network.channels, count, axes)
    latents, off, measured = _project(cache, projection, folds)
    projection = _with_reach(projection, off, measured)
    properties_off = BackboneHead(projection).property_errors(latents)
    errors = np.maximum(off / projection.direction_reach, properties_off)
    # Errors are in reaches.
    familiarity = Familiarity(
        min(float(np.median(errors)), 1.0), 1.0, margin=1.0, error="distance from the learned photographs"
    )
    random = np.random.default_rng(SEED)
    population = Population.from_latents(latents[random.permutation(count)], familiarity, graded=True)
    manifest = _describe(source, network, projection, population, backbone, count, len(unreadable))
    read = [position for tile in cache.tiles() for position in tile.positions]
    contents = {
        ENCODER: backbone.read_bytes(),
        PROJECTION: projection_file.to_npz(projection),
        card.SHEET: card.draw_axes(latents[:, 0], [files[position] for position in read], reading.samples, manifest),
    }
    bundle = store.write(out, manifest, contents, population, card.write_card(manifest, population))
    cache.remove()
    return Learned(bundle, count, unreadable, reading.list_warnings())


def _fit_projection(
    cache: FeatureCache, channels: int, count: int, axes: int
) -> tuple[Projection, list[tuple[Float64Array, Float64Array]]]:
    """Return the projection, and for each fold the mean and principal axes of the other folds' directions."""
    moments = FeatureMoments.empty(channels)
    step = -(-count // NEIGHBOURHOOD)
    sample, measured, seen = [], [], 0
    for tile in cache.tiles():
        moments.add(tile.features)
        sample.append(tile.features[-seen % step :: step].copy())  # a view would keep the whole tile
        measured.append(tile.measured)
        seen += len(tile.features)
    most = min(PRINCIPAL, count // PHOTOGRAPHS_A_PRINCIPAL)
    mean, principal, variances = moments.principal(most)
    if not len(variances) or variances[0] <= np.finfo(np.float32).eps * np.square(mean).sum():
        raise InvalidInput(
            f"All {count} photographs look alike to the backbone: nothing can be learned from them.",
            "Learn a folder whose photographs differ. Copies of one photograph do not.",
        )
    few = min(axes, len(variances), max(count // PHOTOGRAPHS_AN_AXIS, 1))
    neighbourhood = np.concatenate(sample)
    parts = _sum_directions(cache, channels, neighbourhood[:: -(-len(neighbourhood) // CROWDED)])
    whole = sum(parts[1:], start=parts[0])
    direction, span, _ = whole.principal(most)
    values = np.concatenate(measured)
    spread = values.std(axis=0)
    projection = Projection(
        mean=mean,
        axes=locality_preserving(neighbourhood, mean, principal, variances, few),
        direction=direction,
        principal=span,
        property_mean=values.mean(axis=0),
        property_spread=np.where(spread > 0, np.maximum(spread, LEAST_SPREAD), 1.0),
        logvar=np.log(np.repeat([CONTENT_VARIANCE, PROPERTY_VARIANCE], [few, len(PROPERTIES)])),
        direction_reach=np.ones(1),
        property_reach=np.ones(len(PROPERTIES)),
    )
    return projection, [(whole - part).principal(most)[:2] for part in parts]


def _sum_directions(cache: FeatureCache, channels: int, sample: Float64Array) -> list[FeatureMoments]:
    """Return the moments of the directions of each fold without its loneliest photographs: `sample` (m, C) is what
    they are far from.
    """
    parts, seen = [FeatureMoments.empty(channels) for _ in range(FOLDS)], 0
    furthest = np.quantile(crowd_distances(sample, sample), 1 - LONELY)
    for tile in cache.tiles():
        towards, fold = directions(tile.features), _deal(seen, tile)
        is_crowded = crowd_distances(tile.features, sample) <= furthest
        for number, part in enumerate(parts):
            part.add(towards[is_crowded & (fold == number)])
        seen += len(towards)
    return parts


def _project(
    cache: FeatureCache, projection: Projection, folds: Sequence[tuple[Float64Array, Float64Array]]
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Return the latents (n, 2, L) of all photographs, how far each lies from what the other folds span (n,), and their
    properties (n, P).
    """
    head, latents, off, measured, seen = BackboneHead(projection), [], [], [], 0
    for tile in cache.tiles():
        latents.append(head.latents_of(tile.features, tile.measured))
        towards, fold = directions(tile.features), _deal(seen, tile)
        distances = np.empty(len(towards))
        for number, (mean, principal) in enumerate(folds):
            distances[fold == number] = residuals(towards[fold == number], mean, principal)
        off.append(distances)
        measured.append(tile.measured)
        seen += len(towards)
    return np.concatenate(latents).astype(np.float64), np.concatenate(off), np.concatenate(measured)


def _with_reach(projection: Projection, off: Float64Array, measured: Float64Array) -> Projection:
    """Return the projection with how far nearly all of the collection reaches."""
    logarithm = np.log(np.maximum(off, np.finfo(np.float32).tiny))
    spread = float(normal_deviation(logarithm))
    reach = np.exp(min(np.quantile(logarithm, HIGH), np.median(logarithm) + MOST_DEVIATIONS * spread))
    z = np.abs(measured - projection.property_mean) / projection.property_spread
    return replace(
        projection,
        direction_reach=np.array([REACH_MARGIN * reach]),
        property_reach=np.maximum(REACH_MARGIN * np.quantile(z, PROPERTY_HIGH, axis=0), LEAST_REACH),
    )


def _deal(seen: int, tile: Tile) -> IndexArray:
    """Return the fold of each photograph of a tile, before which `seen` were dealt."""
    return np.asarray((seen + np.arange(len(tile.features))) % FOLDS)


def _describe(
    source: Path,
    network: FeatureNetwork,
    projection: Projection,
    population: Population,
    backbone: Path,
    count: int,
    unreadable: int,
) -> Manifest:
    content = projection.axes.shape[1]
    names: list[tuple[str, str, str | None]] = [(content_name(index), CONTENT, None) for index in range(content)]
    names += [(each.name, each.name, each.unit) for each in PROPERTIES]
    variances = np.diag(population.covariance)
    latents = tuple(
        Latent(index=index, name=name, factor=factor, unit=unit, dead=bool(variances[index] < DEAD_VARIANCE))
        for index, (name, factor, unit) in enumerate(names)
    )
    provenance_file = backbone.with_name(PROVENANCE)
    name = readable(source.resolve().name)
    provenance: dict[str, Any] = {"name": backbone.stem}
    if provenance_file.exists():
        provenance = json.loads(provenance_file.read_text())
    return Manifest(
        format_version=FORMAT_VERSION,
        model=f"{name} ({provenance['name']})",
        kind="backbone",
        image=network.image,
        latent_dim=len(latents),
        latents=latents,
        estimator=ESTIMATOR,
        parity=Parity(
            batch_sizes=(),
            latents_relative=provenance.get("parity", {}).get("pooled_features_relative", 0.0),
            pixels_grey_levels=0,
        ),
        metrics={"photographs": count},
        training={"backbone": provenance, "axes": content, "principal": int(projection.principal.shape[1])},
        data={"name": name, "photographs": count, "unreadable": unreadable},
        licence="your own photographs; backbone: " + provenance.get("licence", "not stated"),
    )
