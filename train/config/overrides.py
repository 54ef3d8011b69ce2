"""Changes of a preset by the command line: one field, the size of the images, or the length of the recipe."""

from __future__ import annotations

import ast
from dataclasses import fields, replace
from typing import Any

from train.config.experiment import Preset

SMALLEST_GRID = 4  # pixels a side that the convolutions of `resize` leave


def override(preset: Preset, setting: str) -> Preset:
    """Return `preset` with one field changed. `setting` is "steps=5000" or "objective.beta=8"."""
    path, separator, text = setting.partition("=")
    owner, _, name = path.rpartition(".")
    parts: dict[str, Any] = {"": preset, "network": preset.network, "objective": preset.objective}
    known = [f"{part}.{field.name}".lstrip(".") for part, value in parts.items() for field in fields(value)]
    if not separator or path not in known:
        raise ValueError(f"{setting!r} is not FIELD=VALUE with one of the fields {', '.join(known)}")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    try:
        changed = replace(parts[owner], **{name: value})
    except TypeError as error:
        raise ValueError(f"{value!r} cannot be the {path} of {preset.name}: {error}") from error
    return replace(preset, **{owner: changed}) if owner else changed


def resize(preset: Preset, size: int, channels: int) -> Preset:
    """Return `preset` for square images of `size` x `size` pixels and 1 or 3 `channels`.

    The network gets as many convolutions as fit. Each convolution halves the side, down to 4 pixels or more, and has at
    most 256 features. Raises ValueError where fewer than two fit.
    """
    if channels not in (1, 3):
        raise ValueError(f"images have 1 channel (grey) or 3 (colour), not {channels}")
    depth = 0
    while size % 2 ** (depth + 1) == 0 and size // 2 ** (depth + 1) >= SMALLEST_GRID:
        depth += 1
    if depth < 2:
        raise ValueError(f"a size of {size} cannot be halved twice: use a multiple of 4 from 16 on, such as 64")
    features = tuple(min(32 * 2**place, 256) for place in range(depth))
    return replace(preset, network=replace(preset.network, channels=features), image_shape=(size, size, channels))


def shorten(preset: Preset, steps: int) -> Preset:
    """Return `preset` with the whole recipe in about `steps` steps.

    Every schedule shrinks in proportion and keeps at least one step. Raises ValueError for fewer steps than one.
    """
    if steps < 1:
        raise ValueError(f"a run has at least 1 step, got {steps}")
    share = steps / preset.total_steps

    def shrink(part: Any) -> dict[str, Any]:
        lengths = {field.name: getattr(part, field.name) for field in fields(part) if field.name.endswith("steps")}
        return {name: max(1, round(length * share)) for name, length in lengths.items() if length}

    changes = shrink(preset)
    earlier = 0  # each stage keeps at least one step of its own
    for stage in ("narrow_steps", "folded_steps", "steps"):
        if stage in changes:
            changes[stage] = earlier = max(changes[stage], earlier + 1)
    objective: Any = preset.objective
    return replace(preset, objective=replace(objective, **shrink(objective)), **changes)
