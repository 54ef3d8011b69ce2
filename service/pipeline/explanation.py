"""The answer of /explain with its heat maps: as JSON, as one contact sheet, or as files in a zip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.api.options import ExplainOptions, maps_of_image, most_pictures
from service.api.schemas import ScoreResponse
from service.bundle.store import Bundle
from service.core.types import Float32Array, Float64Array, IndexArray
from service.errors import InvalidOption
from service.images import contact_sheet, heat_map, png, zip_writer
from service.images.spec import Uint8Array
from service.pipeline import record_sizes, responses
from service.pipeline.batch import Batch
from service.pipeline.chunked_response import Pieced
from service.pipeline.responses import Explained, Record


@dataclass(frozen=True)
class Explanation:
    """The answer of /explain. Its m images `explained.mapped` get t heat maps each, drawn when they are asked for.

    pixels    (m, H, W, C)  those images
    evidence  (m, t, h, w)  what makes each of their top latents be further up, or down, than in a typical image
    """

    batch: Batch
    explained: Explained
    bundle: Bundle
    pixels: Uint8Array
    evidence: Float64Array

    def as_json(self) -> Pieced[ScoreResponse]:
        """Each heat map as base64 of a PNG, with the image that it is of."""
        places = {int(row): number for number, row in enumerate(self.explained.mapped)}

        def details(rows: slice) -> list[Record]:
            records = self.explained.details(rows)
            for row, record in enumerate(records, start=rows.start):
                if row in places:
                    names, overlays = self._drawn(places[row])
                    record["heat_maps"] = [
                        {"latent": name, "image": png.to_base64(overlay)}
                        for name, overlay in zip(names, overlays, strict=True)
                    ]
            return records

        weights = self._weights()
        weights[self.explained.mapped] += self.explained.top.shape[1] * record_sizes.heat_map(self.bundle)
        return responses.pieced(self.batch, self.bundle, details, weights)

    def without_maps(self) -> Pieced[ScoreResponse]:
        """The answer but for its heat maps."""
        return responses.pieced(self.batch, self.bundle, self.explained.details, self._weights())

    def as_sheet(self) -> bytes:
        """A row for each image that has heat maps, the most outlying first: the image, then its maps; as PNG.

        Raises InvalidOption where there is no heat map to show.
        """
        if not self.explained.top.size:
            raise InvalidOption(
                "No image gets a heat map, so there is no sheet to show.",
                "Ask for heat_maps=all, or for JSON; of a bundle without saliency.onnx there are none.",
            )
        rows, captions = [], []
        for number, row in enumerate(self.explained.mapped):
            names, overlays = self._drawn(number)
            rows.append(np.stack([np.broadcast_to(self.pixels[number], overlays.shape[1:]), *overlays]))
            captions.append(f"{self._id(row)}: {', '.join(names)}")
        columns = ("as sent", *(f"top {place + 1}" for place in range(len(rows[0]) - 1)))
        return contact_sheet.sheet_png(rows, captions, columns)

    def as_zip(self) -> Iterator[bytes]:
        """A PNG for each heat map, called by its image's rank and id and its latent, and answer.json."""
        return zip_writer.zip_pieces(self._files())

    def _files(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        assert self.batch.scores is not None, "explanations are of images"
        places: dict[str, tuple[int, int]] = {}  # where two are called alike, there is the last of them
        for number, (row, dims) in enumerate(zip(self.explained.mapped, self.explained.top, strict=True)):
            rank, image = self.batch.scores.rank[row], zip_writer.file_stem(self._id(row))
            for place, dim in enumerate(dims):
                name = zip_writer.file_stem(self.bundle.manifest.latents[dim].name)
                places[f"{rank:04}_{image}_{name}.png"] = number, place
        for name, (number, place) in places.items():
            (overlay,) = heat_map.overlays(self.pixels[number], self.evidence[number, place : place + 1])
            yield name, iter([png.to_png(overlay)])
        yield "answer.json", self.without_maps().json(indent=2)

    def _drawn(self, number: int) -> tuple[list[str], Uint8Array]:
        """The latents' names and the overlays (t, H, W, 3) of the image `explained.mapped[number]`."""
        latents = self.bundle.manifest.latents
        overlays = heat_map.overlays(self.pixels[number], self.evidence[number])
        return [latents[dim].name for dim in self.explained.top[number]], overlays

    def _id(self, row: np.intp) -> str:
        return self.batch.images.ids[self.batch.positions[row]]

    def _weights(self) -> NDArray[np.int64]:
        return np.full(len(self.batch.positions), self.explained.record_bytes)


def most_mapped(images: int, options: ExplainOptions, bundle: Bundle) -> int:
    """Return how many of a request's images may get heat maps, at least one.

    Raises InvalidOption where `options` want more of them than one answer may hold.
    """
    each, most = maps_of_image(options, bundle), most_pictures(bundle.manifest.image)
    if options.heat_maps == "all" and bundle.manifest.has_saliency and images * each > most:
        raise InvalidOption(
            f"{images} images with {each} heat maps each are {images * each} maps; at most {most} are drawn at a time.",
            "Ask for heat_maps=flagged or for a smaller top, or send fewer images, with a context or a reference set "
            "so that they are still compared with the same.",
        )
    return max(1, most // max(each, 1))


def left_out(batch: Batch, mapped: int) -> str | None:
    """Return what to warn of where heat maps are of no more than `mapped` of the flagged images."""
    assert batch.scores is not None, "explanations are of images"
    if (flagged := int(batch.scores.is_outlier.sum())) <= mapped:
        return None
    return (
        f"{flagged} images are flagged, more than get heat maps at a time: they are of the {mapped} most outlying. "
        "A smaller top leaves room for more images."
    )


def evidence(maps: Float32Array, top: IndexArray, signs: Float64Array) -> Float64Array:
    """Return what makes the latents `top` (k, t) be further up (`signs` 1) or down (-1) than in a typical image.

    maps  (k, L, h, w)  of the images, less that of the typical one
    The result is (k, t, h, w).
    """
    chosen = np.take_along_axis(maps, top[:, :, None, None], axis=1)
    return np.maximum(chosen * signs[:, :, None, None], 0)
