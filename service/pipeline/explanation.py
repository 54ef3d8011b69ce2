"""The answer of /explain with its heat maps: as JSON, as one contact sheet, or as files in a zip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.api.options import ExplainOptions, maps_of_image, most_pictures
from service.api.schemas import ScoreResponse
from service.bundle.store import Bundle
from service.core.types import Float64Array
from service.errors import InvalidOption
from service.images import contact_sheet, heat_map, png, zip_writer
from service.images.spec import Uint8Array
from service.pipeline import record_sizes, responses
from service.pipeline.batch import Batch
from service.pipeline.chunked_response import ChunkedResponse
from service.pipeline.item_details import ExplanationWithoutMaps, Record


@dataclass(frozen=True)
class Explanation:
    """The answer of /explain. Its m images `explained.mapped` get t heat maps each, drawn when they are asked for.

    pixels    (m, H, W, C)  those images
    evidence  (m, t, h, w)  where in the image each of its top latents gets its deviation from a typical image
    """

    batch: Batch
    explained: ExplanationWithoutMaps
    bundle: Bundle
    pixels: Uint8Array
    evidence: Float64Array

    def as_json(self) -> ChunkedResponse[ScoreResponse]:
        """Return the answer with each heat map as base64 of a PNG, over its image."""
        places = {int(row): number for number, row in enumerate(self.explained.mapped)}

        def details(rows: slice) -> list[Record]:
            records = self.explained.details(rows)
            for row, record in enumerate(records, start=rows.start):
                if row in places:
                    names, overlays = self._draw_maps(places[row])
                    record["heat_maps"] = [
                        {"latent": name, "image": png.to_base64(overlay)}
                        for name, overlay in zip(names, overlays, strict=True)
                    ]
            return records

        sizes = self._estimate_sizes()
        sizes[self.explained.mapped] += self.explained.top.shape[1] * record_sizes.heat_map(self.bundle)
        return responses.build_chunked_score_response(self.batch, self.bundle, details, sizes)

    def without_maps(self) -> ChunkedResponse[ScoreResponse]:
        """Return the answer without heat maps."""
        return responses.build_chunked_score_response(
            self.batch, self.bundle, self.explained.details, self._estimate_sizes()
        )

    def as_sheet(self) -> bytes:
        """Return one sheet as PNG: a row for each image with heat maps, the image first, the most outlying on top.

        Raises InvalidOption where there is no heat map to show.
        """
        if not self.explained.top.size:
            raise InvalidOption(
                "No image gets a heat map, so there is no sheet to show.",
                "Ask for heat_maps=all, or for JSON; of a bundle without saliency.onnx there are none.",
            )
        rows, captions = [], []
        for number, row in enumerate(self.explained.mapped):
            names, overlays = self._draw_maps(number)
            rows.append(np.stack([np.broadcast_to(self.pixels[number], overlays.shape[1:]), *overlays]))
            captions.append(f"{self._get_id(row)}: {', '.join(names)}")
        columns = ("as sent", *(f"top {place + 1}" for place in range(len(rows[0]) - 1)))
        return contact_sheet.sheet_png(rows, captions, columns)

    def as_zip(self) -> Iterator[bytes]:
        """Yield a zip: a PNG for each heat map, named by its image's rank and id and its latent, and answer.json."""
        return zip_writer.zip_pieces(self._iterate_files())

    def _iterate_files(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        places: dict[str, tuple[int, int]] = {}  # of two maps of one name, the last
        for number, (row, dims) in enumerate(zip(self.explained.mapped, self.explained.top, strict=True)):
            rank, image = self.batch.require_scores().rank[row], zip_writer.file_stem(self._get_id(row))
            for place, dim in enumerate(dims):
                name = zip_writer.file_stem(self.bundle.manifest.latents[dim].name)
                places[f"{rank:04}_{image}_{name}.png"] = number, place
        for name, (number, place) in places.items():
            (overlay,) = heat_map.overlays(self.pixels[number], self.evidence[number, place : place + 1])
            yield name, iter([png.to_png(overlay)])
        yield "answer.json", self.without_maps().json(indent=2)

    def _draw_maps(self, number: int) -> tuple[list[str], Uint8Array]:
        """Return the latents' names and the overlays (t, H, W, 3) of the image `explained.mapped[number]`."""
        latents = self.bundle.manifest.latents
        overlays = heat_map.overlays(self.pixels[number], self.evidence[number])
        return [latents[dim].name for dim in self.explained.top[number]], overlays

    def _get_id(self, row: np.intp) -> str:
        return self.batch.images.ids[self.batch.positions[row]]

    def _estimate_sizes(self) -> NDArray[np.int64]:
        return np.full(len(self.batch.positions), self.explained.record_bytes)


def limit_mapped_images(images: int, options: ExplainOptions, bundle: Bundle) -> int:
    """Return how many of a request's images may get heat maps, at least one.

    Raises InvalidOption where `options` want more of them than one answer may hold.
    """
    maps, limit = maps_of_image(options, bundle), most_pictures(bundle.manifest.image)
    if options.heat_maps == "all" and bundle.manifest.capabilities.has_saliency and images * maps > limit:
        raise InvalidOption(
            f"{images} images with {maps} heat maps each are {images * maps} maps; at most {limit} are drawn at a "
            "time.",
            "Ask for heat_maps=flagged or for a smaller top, or send fewer images, with a context or a reference set "
            "so that they are still compared with the same.",
        )
    return max(1, limit // max(maps, 1))


def warn_of_unmapped(batch: Batch, mapped: int) -> str | None:
    """Return a warning where no more than `mapped` of the flagged images get heat maps, else None."""
    if (flagged := int(batch.require_scores().is_outlier.sum())) <= mapped:
        return None
    return (
        f"{flagged} images are flagged, more than get heat maps at a time: they are of the {mapped} most outlying. "
        "A smaller top leaves room for more images."
    )


def compute_evidence(maps: NDArray[np.float32], top: NDArray[np.intp], signs: NDArray[np.float64]) -> Float64Array:
    """Return where the latents `top` (k, t) get their deviation up (`signs` 1) or down (-1) from, (k, t, h, w).

    maps  (k, L, h, w)  of the images, minus that of the typical one
    """
    top_maps = np.take_along_axis(maps, top[:, :, None, None], axis=1)
    return np.maximum(top_maps * signs[:, :, None, None], 0)
