"""A training batch in shards, one thread each, that wait for each other twice a pass and not after every layer.

PyTorch splits every operation over OpenMP's threads, which meet at a barrier after each: some hundreds of barriers a
step. Where another process has one of the cores, all threads wait at every barrier for the one that is not running,
and training falls far below its share of the cores. Spinning less at the barrier does not help: the wait is the
scheduler's. Threads that meet a few times a step lose nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Compute = Callable[[Tensor], Tensor | Sequence[Tensor]]

# Fewer images than this to a shard are not worth a thread.
LEAST = 4


class Shards:
    """Runs networks on the shards of a training batch: as many as there are threads."""

    def __init__(self, pool: ThreadPoolExecutor, threads: int) -> None:
        self._pool = pool
        self._threads = threads

    def run(self, function: Compute, module: nn.Module, batch: Tensor, *, bf16: bool = False) -> tuple[Tensor, ...]:
        """Return `function` of `batch` (M, ...), computed shard by shard. Gradients flow to the batch and to `module`.

        `function` must work image by image, and use no weights but those of `module`. Its outputs are (M, ...).
        Gradients are summed in the order of the shards, so that the result does not depend on which thread is first.
        """
        weights = [weight for weight in module.parameters() if weight.requires_grad]
        count = min(self._threads, max(len(batch) // LEAST, 1))
        outputs: tuple[Tensor, ...] = _Sharded.apply(  # type: ignore[no-untyped-call]
            self._pool, function, count, bf16, batch, *weights
        )
        return outputs

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Give torch its threads back, for work of other kinds."""
        torch.set_num_threads(self._threads)
        try:
            yield
        finally:
            torch.set_num_threads(1)


@contextmanager
def open_shards() -> Iterator[Shards]:
    """Hand out shards for as many threads as torch has; torch itself has one in the meantime."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # The number of threads is also each thread's own setting.
        with ThreadPoolExecutor(threads, "shards", initializer=lambda: torch.set_num_threads(1)) as pool:
            yield Shards(pool, threads)
    finally:
        torch.set_num_threads(threads)


class _Sharded(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        pool: ThreadPoolExecutor,
        function: Compute,
        count: int,
        bf16: bool,
        batch: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, ...]:
        """Run `function` on each shard, and keep the shards' graphs."""
        needs_gradient = batch.requires_grad

        def run(shard: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
            shard = shard.detach().requires_grad_(needs_gradient)
            with torch.enable_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                outputs = function(shard)
                outputs = [outputs] if isinstance(outputs, Tensor) else outputs
                return shard, [output.float() for output in outputs]

        ctx.pool, ctx.weights, ctx.needs_gradient = pool, weights, needs_gradient
        ctx.parts = list(pool.map(run, batch.chunk(count)))
        columns = zip(*(outputs for _, outputs in ctx.parts), strict=True)
        return tuple(torch.cat([output.detach() for output in column]) for column in columns)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Run the shards' graphs backward, and sum the gradients of the weights."""

        def run(part: tuple[Tensor, Sequence[Tensor]], *of_outputs: Tensor) -> tuple[Tensor, ...]:
            shard, outputs = part
            wanted = ([shard] if ctx.needs_gradient else []) + list(ctx.weights)
            return torch.autograd.grad(outputs, wanted, of_outputs)

        lengths = [len(shard) for shard, _ in ctx.parts]
        parts = list(ctx.pool.map(run, ctx.parts, *(torch.split(gradient, lengths) for gradient in gradients)))
        of_batch = torch.cat([part[0] for part in parts]) if ctx.needs_gradient else None
        of_weights = [sum(column) for column in zip(*(part[ctx.needs_gradient :] for part in parts), strict=True)]
        return (None, None, None, None, of_batch, *of_weights)
