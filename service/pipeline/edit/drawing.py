"""Edit plans to pictures: decoded, or, where the model cannot decode, found among the images of the batch."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np

from service.api.options import ScoringOptions
from service.api.requests import ImagesRequest
from service.bundle.store import Bundle
from service.core.edit import latent_edits
from service.errors import InvalidInput
from service.pipeline.batch import Batch, DecodedImages
from service.pipeline.batch_scorer import BatchScorer
from service.pipeline.chunked_inference import ChunkedInference
from service.pipeline.edit import edit_result, exemplars
from service.pipeline.edit.edit_plan import EditPlan
from service.pipeline.edit.edit_result import EditResult
from service.pipeline.hooks import Hooks


@dataclass(frozen=True)
class Drawing:
    """What the use cases that draw pictures end with, over one bundle."""

    bundle: Bundle
    inference: ChunkedInference
    scorer: BatchScorer
    hooks: Hooks

    async def draw_or_choose(self, plan: EditPlan, request: ImagesRequest[ScoringOptions], batch: Batch) -> EditResult:
        """Draw what was planned, or find the images of the batch that are nearest to it."""
        if self.inference.networks.capabilities.can_decode:
            return await self.draw(plan)
        with self.hooks.stage("edit"):
            rows = await asyncio.to_thread(exemplars.choose, plan, batch, self.bundle)
        pixels = await self.scorer.get_pixels(request, batch, rows)
        shown = DecodedImages(plan.latents, pixels, batch.images.latents[rows])
        with self.hooks.stage("edit"):
            plan = exemplars.named(plan, rows, batch)
            return await asyncio.to_thread(edit_result.build_result, plan, shown, self.bundle)

    async def draw(self, plan: EditPlan) -> EditResult:
        """Decode what was planned and encode it again; counterfactuals that do not fit are decoded once more."""
        decoded = await self.inference.decode_and_reencode(plan.latents)
        with self.hooks.stage("edit"):
            rows = await asyncio.to_thread(edit_result.find_missed, plan, decoded, self.bundle)
        if len(rows):
            assert plan.repaired is not None, "only counterfactuals have a target"
            target = latent_edits.compensated(plan.latents[rows], decoded.reencoded[rows, 0], plan.repaired[rows])
            second = await self.inference.decode_and_reencode(target)
            decoded = edit_result.keep_nearer(plan, decoded, rows, second, self.bundle)
        with self.hooks.stage("edit"):
            return await asyncio.to_thread(edit_result.build_result, plan, decoded, self.bundle)

    def draw_nothing(self, plan: EditPlan) -> EditResult:
        """Return the result of a plan without pictures."""
        manifest = self.bundle.manifest
        images = np.empty((0, *manifest.image.shape), dtype=np.uint8)
        decoded = DecodedImages(plan.latents, images, np.empty((0, 2, manifest.latent_dim), dtype=np.float32))
        return edit_result.build_result(plan, decoded, self.bundle)

    def require_decoder(self) -> None:
        """Raise InvalidInput where the model cannot draw."""
        if not self.inference.networks.capabilities.can_decode:
            raise InvalidInput(
                f"The model {self.bundle.manifest.model} has no decoder, so it can draw no pictures.",
                "Ask for /edit, /traverse or /sample with images, which show the nearest of them, or serve a bundle "
                "with decoder.onnx.",
            )
