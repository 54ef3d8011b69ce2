"""What the pipeline tells about its work, for whoever listens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, ParamSpec, TypeVar

from service.pipeline.batch import Batch, Encoded

# Of a request, in the order in which it goes through them; what waits for a thread or for the networks is counted too.
Stage = Literal[
    "parse",  # a body to uploads and options
    "decode",  # image files to pixels
    "encode",  # pixels to latents, and a look at what those would draw: is the image foreign?
    "draw",  # latents to pixels
    "statistics",  # latents to a context, and to scores
    "explain",  # attributions and reasons
    "saliency",  # heat maps
    "edit",  # what to draw, and how near it came
    "serialise",  # results to bytes
]
Arguments = ParamSpec("Arguments")
Found = TypeVar("Found")


class Observer:
    """Listens to nothing, which is enough offline."""

    def stage(self, name: Stage) -> AbstractContextManager[None]:
        """What happens inside is part of that stage."""
        return nullcontext()

    async def timed(
        self,
        stage: Stage,
        work: Callable[Arguments, Found],
        *arguments: Arguments.args,
        **options: Arguments.kwargs,
    ) -> Found:
        """What `work` returns, done in a thread, as a part of `stage`."""
        with self.stage(stage):
            return await asyncio.to_thread(work, *arguments, **options)

    def encoded(self, images: Encoded) -> None:
        """Images of one request, all of its own or all of its reference, have been encoded as far as they could be."""

    def scored(self, batch: Batch) -> None:
        """A request's images, of which there are some, have been scored."""
