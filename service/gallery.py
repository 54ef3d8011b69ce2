"""Pictures as answers: what an edit, traversal, path or sample is to decode, and what came of it.

A plan is made of latents alone; the pipeline has it decoded and the pictures encoded again; `finish` makes the answer
of all three. It can be had as JSON, as one contact sheet, or as files in a zip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service import answers, attribution, edits, odds, pictures
from service.batch import Batch
from service.bundle import Bundle
from service.context import Context, Float64Array
from service.errors import InvalidOption
from service.options import (
    MOST_PICTURES,
    EditOptions,
    ImageChoice,
    InterpolateOptions,
    SampleOptions,
    TraverseOptions,
)
from service.schemas import Distances, ErrorDetail, Picture, PicturesResponse, ScoredContext
from service.scoring import Scores

# Latents that differ by less than this are the same: a rounding error is no edit.
UNCHANGED = 1e-6


@dataclass(frozen=True)
class Plan:
    """k pictures to be decoded.

    latents     (k, L)
    start       (k, L)  the latents that each was made from, or None where they were made from none
    sources     (k,)    the request's image that each was made from, -1 for none
    originals   (k, H, W, C)  the images themselves, shown beside the pictures, or None
    ids         (k,)
    columns             pictures in a row of the contact sheet
    captions            of the contact sheet's rows and columns
    repaired    (k, L)  of counterfactuals, the latents that were changed so that the image fits
    """

    latents: Float64Array
    start: Float64Array | None
    sources: Sequence[int]
    ids: Sequence[str]
    columns: int
    row_captions: Sequence[str]
    column_captions: Sequence[str]
    context: Context | None
    errors: dict[str, ErrorDetail]
    warnings: tuple[str, ...] = ()
    originals: NDArray[np.uint8] | None = None
    repaired: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Gallery:
    """The answer without its pictures, and the pictures (k, H, W, C)."""

    plan: Plan
    response: PicturesResponse
    images: NDArray[np.uint8]

    def with_pictures(self) -> PicturesResponse:
        """Each picture as base64 of a PNG."""
        shown = [
            picture.model_copy(update={"image": pictures.to_base64(image)})
            for picture, image in zip(self.response.pictures, self.images, strict=True)
        ]
        return self.response.model_copy(update={"pictures": shown})

    def as_sheet(self) -> bytes:
        """All pictures on one sheet, as PNG; edited images stand to the right of what they were."""
        plan = self.plan
        tiles = self.images
        if plan.originals is not None:
            tiles = np.stack([plan.originals, self.images], axis=1).reshape(-1, *self.images.shape[1:])
        rows = [tiles[at : at + plan.columns] for at in range(0, len(tiles), plan.columns)]
        return pictures.to_png(pictures.contact_sheet(rows, plan.row_captions, plan.column_captions))

    def as_zip(self) -> bytes:
        """One PNG for each picture, called by its place and id, and answer.json with everything else."""
        places = range(len(self.images))
        digits = len(str(len(self.images) - 1))
        names = [f"{place:0{digits}}_{pictures.file_stem(self.plan.ids[place])}.png" for place in places]
        files = {name: pictures.to_png(image) for name, image in zip(names, self.images, strict=True)}
        files["answer.json"] = self.response.model_dump_json(exclude_unset=True, indent=2).encode()
        return pictures.zip_files(files)


def plan_edit(batch: Batch, options: EditOptions, bundle: Bundle) -> Plan:
    """Raises InvalidOption where no image is to be edited, UnknownLatent, and what `service.edits` raises."""
    scores, context, latents = _scores(batch), batch.context, bundle.manifest.latents
    live = bundle.population.live_dims
    positions = batch.positions
    if options.which == "all":
        chosen = np.arange(len(positions))
    elif options.which == "flagged":
        chosen = np.flatnonzero(scores.is_outlier)
    else:
        chosen = np.array([_find(choice, batch) for choice in options.which], dtype=np.intp)
    if len(chosen) == 0:
        raise InvalidOption(
            f"None of the {len(positions)} images is flagged, so there is nothing to edit.",
            'Name the images with which=all or which=["a.png", 3], or lower the threshold.',
        )
    if len(chosen) > MOST_PICTURES:
        raise InvalidOption(
            f"{len(chosen)} images are to be edited; at most {MOST_PICTURES} are at a time.", "Name fewer in which."
        )
    start = batch.images.latents[chosen, 0].astype(np.float64)
    repaired = None
    if options.edit == "counterfactual":
        if options.latents is None:
            repaired = attribution.minimal_sets(batch.images.latents[chosen], context, bundle.population)
            # What is to be edited though it lies inside has no such set: then the latent most to blame changes.
            terms = attribution.attribute(batch.images.latents[chosen], context, bundle.population)
            most = np.arange(len(latents)) == attribution.order(terms, context)[:, :1]
            repaired = np.where(repaired.any(axis=1, keepdims=True), repaired, most)
        else:
            dims = [edits.resolve(latent, latents) for latent in options.latents]
            repaired = np.isin(np.arange(len(latents)), dims)[None].repeat(len(chosen), axis=0)
        edited = edits.counterfactual(start, repaired, context.location, context.covariance, live)
    elif options.edit == "project":
        edited = edits.project(start, context.location, context.covariance, live, context.radius_squared)
    else:
        values = edits.resolve_values(options.values, latents)
        edited = edits.move(start, values, options.unit, options.edit == "shift", context.location, context.covariance)
    ids = [batch.images.ids[positions[row]] for row in chosen]
    return Plan(
        latents=edited,
        start=start,
        sources=[positions[row] for row in chosen],
        ids=ids,
        columns=2,
        row_captions=ids,
        column_captions=("as sent", options.edit),
        context=context,
        errors=answers.errors_by_id(batch.images),
        originals=batch.images.pixels[chosen],
        repaired=None if repaired is None else repaired & np.isin(np.arange(len(latents)), live),
    )


def plan_traverse(batch: Batch, options: TraverseOptions, bundle: Bundle) -> Plan:
    """Raises UnknownLatent, and InvalidOption for a plane of other than two latents."""
    context, latents, population = batch.context, bundle.manifest.latents, bundle.population
    dims = [edits.resolve(latent, latents) for latent in options.latents]
    # Not from the middle if there are images: a mean of several modes may look like nothing at all.
    row = batch.typical if options.start is None else _find(options.start, batch)
    start = context.location if row is None else batch.images.latents[row, 0].astype(np.float64)
    moments = (
        (context.location, context.covariance)
        if options.range == "context"
        else (population.location, population.covariance)
    )
    # Adding 0 makes -0 a 0.
    steps = [f"{step + 0:.2g} sd" for step in np.linspace(-options.span, options.span, options.steps).round(6)]
    if options.plane:
        if len(dims) != 2:
            raise InvalidOption(f"A plane takes two latents, {len(dims)} are given.", "Name the two, or leave plane.")
        grid = edits.traverse_plane(start, (dims[0], dims[1]), options.steps, *moments, span=options.span)
        names = [latents[dims[0]].name] * options.steps
        row_captions = [
            f"{names[0]} {step:+.1f} sd" for step in np.linspace(-options.span, options.span, options.steps)
        ]
    else:
        grid = edits.traverse(start, dims, options.steps, *moments, span=options.span)
        row_captions = names = [latents[dim].name for dim in dims]
    return _from_one(
        batch,
        grid.reshape(-1, grid.shape[-1]),
        start if row is not None else None,
        row,
        ids=[f"{name}_{down}_{across}" for down, name in enumerate(names) for across in range(options.steps)],
        columns=options.steps,
        row_captions=row_captions,
        column_captions=steps,
    )


def plan_interpolate(batch: Batch, options: InterpolateOptions, bundle: Bundle) -> Plan:
    """Raises InvalidOption where start or end is no image of the request."""
    first, last = (batch.images.latents[_find(choice, batch), 0] for choice in (options.start, options.end))
    path = edits.interpolate(first.astype(np.float64), last.astype(np.float64), options.frames)
    return _from_one(
        batch,
        path,
        path[0],
        _find(options.start, batch),
        ids=[f"frame_{frame:03}" for frame in range(options.frames)],
        columns=min(options.frames, 10),
    )


def plan_sample(batch: Batch, options: SampleOptions, bundle: Bundle) -> Plan:
    """Raises ContextTooSmall where there is no normal image to draw from."""
    context, rng = batch.context, np.random.default_rng(options.seed)
    sources = [-1] * options.count
    if options.method == "empirical":
        normal = np.flatnonzero(~batch.scores.is_outlier) if batch.scores is not None else np.empty(0, np.intp)
        samples, drawn = edits.sample_empirical(batch.images.latents[normal], options.count, rng)
        positions = batch.positions
        sources = [positions[normal[row]] for row in drawn]
    else:
        live = bundle.population.live_dims
        samples = edits.sample_gaussian(
            options.count, context.location, context.covariance, live, context.radius_squared, rng
        )
    ids = [f"sample_{number:03}" for number in range(options.count)]
    errors = answers.errors_by_id(batch.images)
    return Plan(samples, None, sources, ids, min(options.count, 10), (), (), context, errors)


def plan_decode(latents: Float64Array) -> Plan:
    """The latents as they come, without a context."""
    count = len(latents)
    return Plan(latents, None, [-1] * count, [str(row) for row in range(count)], min(count, 10), (), (), None, {})


@dataclass(frozen=True)
class Drawn:
    """What was decoded from latents (k, L): the pictures (k, H, W, C), and what the encoder sees in them (k, 2, L)."""

    latents: Float64Array
    images: NDArray[np.uint8]
    reencoded: NDArray[np.float32]


def missed(plan: Plan, drawn: Drawn, bundle: Bundle) -> NDArray[np.intp]:
    """The counterfactuals whose picture does not fit after all, because the decoder drew something else than meant."""
    if plan.repaired is None or plan.context is None:
        return np.zeros(0, dtype=np.intp)
    return np.flatnonzero(~odds.inside(drawn.reencoded, plan.context, bundle.population))


def nearer(plan: Plan, drawn: Drawn, rows: NDArray[np.intp], again: Drawn, bundle: Bundle) -> Drawn:
    """`drawn`, with those of `rows` that came nearer to the context when they were drawn again."""
    assert plan.context is not None, "only counterfactuals are drawn again"
    first, second = (
        odds.mahalanobis(reencoded, plan.context, bundle.population)
        for reencoded in (drawn.reencoded[rows], again.reencoded)
    )
    better = second < first
    taken = Drawn(drawn.latents.copy(), drawn.images.copy(), drawn.reencoded.copy())
    for whole, part in (
        (taken.latents, again.latents),
        (taken.images, again.images),
        (taken.reencoded, again.reencoded),
    ):
        whole[rows[better]] = part[better]
    return taken


def finish(plan: Plan, drawn: Drawn, bundle: Bundle) -> Gallery:
    """The answer."""
    plan, images, reencoded = replace(plan, latents=drawn.latents), drawn.images, drawn.reencoded
    context, population, names = plan.context, bundle.population, [latent.name for latent in bundle.manifest.latents]
    distances: list[Distances | None] = [None] * len(images)
    fits: list[bool | None] = [None] * len(images)
    if context is not None:
        after = odds.mahalanobis(plan.latents, context, population).tolist()
        again = odds.mahalanobis(reencoded, context, population).tolist()
        before: list[float | None] = [None] * len(images)
        if plan.start is not None:
            before = odds.mahalanobis(plan.start, context, population).tolist()
        distances = [Distances(before=b, after=a, reencoded=r) for b, a, r in zip(before, after, again, strict=True)]
        fits = odds.inside(reencoded, context, population).tolist()
    changed: list[list[str]] = [[] for _ in images]
    if plan.start is not None:
        moved = np.abs(plan.latents - plan.start) > UNCHANGED
        changed = [[names[dim] for dim in population.live_dims if row[dim]] for row in moved]
    shown = [
        Picture(
            id=id_,
            index=source if source >= 0 else None,
            changed=changes,
            latents=latents,
            mahalanobis_squared=distance,
            inside=fit,
        )
        for id_, source, changes, latents, distance, fit in zip(
            plan.ids, plan.sources, changed, plan.latents.tolist(), distances, fits, strict=True
        )
    ]
    scored: ScoredContext | None = None if context is None else answers.scored_context(context)
    response = PicturesResponse(
        bundle_id=bundle.manifest.bundle_id,
        model=bundle.manifest.model,
        context=scored,
        latents=names,
        pictures=shown,
        errors=plan.errors,
    )
    return Gallery(plan, response, images)


def _from_one(
    batch: Batch,
    latents: Float64Array,
    start: Float64Array | None,
    row: int | None,
    *,
    ids: Sequence[str],
    columns: int,
    row_captions: Sequence[str] = (),
    column_captions: Sequence[str] = (),
) -> Plan:
    """A plan whose pictures all begin with the usable image `row`, or with none."""
    source = -1 if row is None else batch.positions[row]
    return Plan(
        latents=latents,
        start=None if start is None else np.broadcast_to(start, latents.shape),
        sources=[source] * len(latents),
        ids=ids,
        columns=columns,
        row_captions=row_captions,
        column_captions=column_captions,
        context=batch.context,
        errors=answers.errors_by_id(batch.images),
    )


def _scores(batch: Batch) -> Scores:
    assert batch.scores is not None, "an edit is of images"
    return batch.scores


def _find(choice: ImageChoice, batch: Batch) -> int:
    """The row of the usable image with that index or id. Raises InvalidOption."""
    ids, errors = batch.images.ids, batch.images.errors
    position = ids.index(choice) if choice in ids else None
    if position is None and str(choice).isdecimal() and int(choice) < len(ids):
        position = int(choice)
    if position is None:
        raise InvalidOption(
            f"There is no image {choice!r} among the {len(ids)} of the request.",
            f"Name one by its id, or by its index from 0 to {len(ids) - 1}." if ids else "Send images.",
        )
    if position in errors:
        raise InvalidOption(f"The image {choice!r} could not be used: {errors[position].message}", "Send it again.")
    return batch.positions.index(position)
