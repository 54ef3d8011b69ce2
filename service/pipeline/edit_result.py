"""What came of a plan: the pictures, what the encoder sees in them, and the answer they make.

It can be had as JSON, as one contact sheet, or as files in a zip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from service.api.schemas import Distances, Picture, PicturesResponse, ScoredContext
from service.bundle.store import Bundle
from service.core.detect import posterior
from service.core.types import IndexArray
from service.images import contact_sheet, png, zip_writer
from service.images.spec import Uint8Array
from service.pipeline import record_sizes, responses
from service.pipeline.batch import Drawn
from service.pipeline.chunked_response import Pieced, cut
from service.pipeline.edit_plan import Plan

# Latents that differ by less than this are the same: a rounding error is no edit.
UNCHANGED = 1e-6


@dataclass(frozen=True)
class Gallery:
    """The answer without its pictures, the pictures (k, H, W, C), and what one takes as JSON, in bytes at most."""

    plan: Plan
    response: PicturesResponse
    images: Uint8Array
    picture_bytes: int

    def as_json(self) -> Pieced[PicturesResponse]:
        """Each picture as base64 of a PNG."""
        ids = [picture.id for picture in self.response.pictures]
        weights = record_sizes.longest_texts(ids) + self.picture_bytes

        def records() -> Iterator[list[Picture]]:
            for places in cut(weights):
                yield [
                    picture.model_copy(update={"image": png.to_base64(image)})
                    for picture, image in zip(self.response.pictures[places], self.images[places], strict=True)
                ]

        return Pieced(self.response.model_copy(update={"pictures": []}), "pictures", records)

    def as_sheet(self) -> bytes:
        """All pictures on one sheet, as PNG; edited images stand to the right of what they were."""
        plan = self.plan
        tiles = self.images
        if plan.originals is not None:
            tiles = np.stack([plan.originals, self.images], axis=1).reshape(-1, *self.images.shape[1:])
        rows = [tiles[at : at + plan.columns] for at in range(0, len(tiles), plan.columns)]
        return contact_sheet.sheet_png(rows, plan.row_captions, plan.column_captions)

    def as_zip(self) -> Iterator[bytes]:
        """One PNG for each picture, called by its place and id, and answer.json with everything else."""
        return zip_writer.zip_pieces(self._files())

    def _files(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        digits = len(str(len(self.images) - 1))
        for place, image in enumerate(self.images):
            name = f"{place:0{digits}}_{zip_writer.file_stem(self.plan.ids[place])}.png"
            yield name, iter([png.to_png(image)])
        yield "answer.json", iter([self.response.model_dump_json(exclude_unset=True, indent=2).encode()])


def missed(plan: Plan, drawn: Drawn, bundle: Bundle) -> IndexArray:
    """The counterfactuals whose picture does not fit after all, because the decoder drew something else than meant."""
    if plan.repaired is None or plan.context is None:
        return np.zeros(0, dtype=np.intp)
    return np.flatnonzero(~posterior.inside(drawn.reencoded, plan.context, bundle.population))


def nearer(plan: Plan, drawn: Drawn, rows: IndexArray, again: Drawn, bundle: Bundle) -> Drawn:
    """`drawn`, with those of `rows` that came nearer to the context when they were drawn again."""
    assert plan.context is not None, "only counterfactuals are drawn again"
    first, second = (
        posterior.mahalanobis(reencoded, plan.context, bundle.population)
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
        after = posterior.mahalanobis(plan.latents, context, population).tolist()
        again = posterior.mahalanobis(reencoded, context, population).tolist()
        before: list[float | None] = [None] * len(images)
        if plan.start is not None:
            before = posterior.mahalanobis(plan.start, context, population).tolist()
        distances = [Distances(before=b, after=a, reencoded=r) for b, a, r in zip(before, after, again, strict=True)]
        fits = posterior.inside(reencoded, context, population).tolist()
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
    scored: ScoredContext | None = None if context is None else responses.scored_context(context)
    response = PicturesResponse(
        bundle_id=bundle.manifest.bundle_id,
        model=bundle.manifest.model,
        context=scored,
        latents=names,
        pictures=shown,
        errors=plan.errors,
    )
    return Gallery(plan, response, images, record_sizes.picture_item(bundle))
