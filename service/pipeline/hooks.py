"""What the pipeline reports while it works. Metrics listen; by default nobody does."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

from service.pipeline.batch import Batch, EncodedImages

# The stages of a request, in order. A stage's time includes waiting for a thread or for the networks.
Stage = Literal[
    "parse",  # a body to uploads and options
    "decode",  # image files to pixels
    "encode",  # pixels to latents, and the reconstruction error of the foreign check
    "draw",  # latents to pixels
    "statistics",  # latents to a context, and to scores
    "explain",  # attributions and reasons
    "saliency",  # heat maps
    "edit",  # which latents to decode, and how near the pictures came
    "serialise",  # results to bytes
]


class Hooks:
    """The calls that the pipeline makes to report. These methods do nothing; a subclass overrides them."""

    def stage(self, name: Stage) -> AbstractContextManager[None]:
        """Return a context manager that measures what happens inside as that stage."""
        return nullcontext()

    def encoded(self, images: EncodedImages) -> None:
        """Report that the images of one request, its own or its reference, have been encoded as far as possible."""

    def scored(self, batch: Batch) -> None:
        """Report that the images of a request, at least one, have been scored."""
