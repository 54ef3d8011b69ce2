"""Upper bounds of the bytes of JSON that one record of an answer takes: they tell where to cut an answer in chunks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.api.options import ComparingOptions, ExplainOptions, ScoreOptions
from service.bundle.store import Bundle

# Bytes of JSON: of a float with all its digits, of field names and punctuation of a record, of a sentence.
NUMBER, ITEM, ENCODED_ITEM, SENTENCE, ATTRIBUTION, FACTOR, PAIR, HEAT_MAP = 20, 250, 70, 250, 105, 45, 28, 30
# Of a neighbour, but for its id, and of an image's index in a set of duplicates with the set's brackets.
NEIGHBOUR, DUPLICATE = 40 + NUMBER, 12
# Of a character in a text that clients choose: at most a control character, written as a number.
CHARACTER = 6
FAILED_ITEM = 1000
# A PNG is at most so much larger than its pixels, and base64 than a PNG.
PNG_HEADER, BASE64 = 300, 4 / 3


def scored_item(options: ScoreOptions | ExplainOptions, bundle: Bundle) -> int:
    """Return the bytes of JSON of one item of /score, but for ids: its own and those of its neighbours."""
    size = ITEM + SENTENCE + _likeness(options)
    if options.attributions == "none":
        return size
    latents = bundle.manifest.latents
    count = len(latents) if options.attributions == "all" else min(options.top, len(latents))
    return size + count * (ATTRIBUTION + 5 * NUMBER + _longest_name(bundle))


def explained_item(options: ExplainOptions, bundle: Bundle) -> int:
    """Return the bytes of JSON of one item of /explain, but for ids and heat maps."""
    live, name = len(bundle.population.live_dims), _longest_name(bundle)
    size = scored_item(options, bundle) + live * (FACTOR + 2 * NUMBER + 2 * name)  # by factor, and in the minimal set
    if options.interactions:
        size += live * (live + 1) // 2 * (PAIR + NUMBER + 2 * name)
    return size


def heat_map(bundle: Bundle) -> int:
    """Return the bytes of JSON of one heat map, at most."""
    image = bundle.manifest.image
    return HEAT_MAP + _longest_name(bundle) + picture(3 * image.height * image.width)


def encoded_item(bundle: Bundle) -> int:
    """Return the bytes of JSON of one item of /encode, but for its id."""
    return ENCODED_ITEM + 2 * bundle.manifest.latent_dim * NUMBER


def picture(pixel_bytes: int) -> int:
    """Return the bytes of JSON of a picture of that many bytes of pixels, at most, as base64 of a PNG."""
    return int(BASE64 * (pixel_bytes + PNG_HEADER))


def failed_items(ids: Sequence[str]) -> NDArray[np.int64]:
    """Return the bytes of JSON (n,) of items with an error, whose text may quote the id."""
    return FAILED_ITEM + 2 * longest_texts(ids)


def longest_texts(ids: Sequence[str]) -> NDArray[np.int64]:
    """Return the bytes of JSON (n,) of the ids, at most."""
    return CHARACTER * np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))


def picture_item(bundle: Bundle) -> int:
    """Return the bytes of JSON of one picture with what is told of it, but for its id."""
    image, dims = bundle.manifest.image, bundle.manifest.latent_dim
    return 2 * ITEM + dims * (NUMBER + _longest_name(bundle)) + picture(image.height * image.width * image.channels)


def _likeness(options: ComparingOptions) -> int:
    """Return the bytes of JSON of an image's neighbours, but for their ids, and of its place among duplicates."""
    return options.nearest * NEIGHBOUR + (DUPLICATE if options.duplicates == "groups" else 0)


def _longest_name(bundle: Bundle) -> int:
    return max(len(name.encode()) for latent in bundle.manifest.latents for name in (latent.name, latent.factor or ""))
