"""The weights of a bundle's networks, read back from its ONNX graphs into a VAE.

A run's checkpoint is not kept for ever, but the bundle is: whoever trains a shipped model further begins with this.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import GraphProto, numpy_helper

from service.bundle.manifest import DECODER, ENCODER
from service.bundle.store import Bundle
from train.config.experiment import Preset, from_record
from train.models.bilateral_filter import SeparableBilateral
from train.models.vae import VAE
from train.training.checkpoint import append_filter

PREFIX = "vae."  # of a weight's name in the graph, before its name in the VAE
FloatArray = NDArray[np.float32]


def load_vae(bundle: Bundle) -> VAE:
    """Return the VAE of a bundle that `python -m export` wrote: float32, in evaluation mode.

    Raises ValueError where the bundle's networks are not those of its preset.
    """
    preset, image = preset_of(bundle), bundle.manifest.image
    network = replace(preset.network, latent_dim=bundle.manifest.latent_dim)
    model = VAE((image.height, image.width, image.channels), network)
    append_filter(model, preset)
    encoder, decoder = (onnx.load(bundle.directory / name).graph for name in (ENCODER, DECODER))
    weights = _weights(encoder) | _weights(decoder)
    if isinstance(model.decoder[-1], SeparableBilateral):
        weights |= _filter_weights(decoder, len(model.decoder) - 1, preset.bilateral_radius)
    try:
        model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})
    except RuntimeError as error:
        raise ValueError(
            f"the graphs of {bundle.manifest.model} hold other weights than its preset: {error}"
        ) from error
    return model.eval()


def preset_of(bundle: Bundle) -> Preset:
    """Return the preset that a bundle was trained by. Raises ValueError where the service learned it."""
    record = bundle.manifest.training.get("preset")
    if not isinstance(record, dict):
        raise ValueError(f"{bundle.manifest.model} was learned by the service: it has no networks to train further")
    return from_record(record)


def _weights(graph: GraphProto) -> dict[str, FloatArray]:
    """Return the weights of the layers by their name in the VAE."""
    return {
        initializer.name.removeprefix(PREFIX): numpy_helper.to_array(initializer)
        for initializer in graph.initializer
        if initializer.name.startswith(PREFIX)
    }


def _filter_weights(graph: GraphProto, place: int, radius: int) -> dict[str, FloatArray]:
    """Return the parameters of the bilateral filter, which the exporter has folded into scalars.

    A weight is exp(nearness - sharpness * apart): both stand in the operations that lead to an exponential, axis by
    axis and from the nearest neighbour to the furthest.
    """
    scalars = {each.name: numpy_helper.to_array(each) for each in graph.initializer if not each.dims}
    made_by = {output: node for node in graph.node for output in node.output}
    nearness, sharpness = [], []
    for node in graph.node:
        if node.op_type == "Exp":
            difference = made_by[node.input[0]]
            product = made_by[difference.input[1]]
            nearness.append(float(scalars[difference.input[0]]))
            sharpness.append(_log(scalars[next(name for name in product.input if name in scalars)]))
    return {
        f"decoder.{place}.nearness": np.array(nearness, np.float32).reshape(2, radius),
        f"decoder.{place}.sharpness": np.array(sharpness, np.float32)[::radius],
    }


def _log(value: FloatArray) -> float:
    """Return the float32 whose exponential numpy rounds to `value`, where there is one.

    The exporter folds constants with numpy: exported again, the graph is the same to the last bit.
    """
    near = np.log(np.float32(value))
    tried = np.array([near, np.nextafter(near, np.float32(-np.inf)), np.nextafter(near, np.float32(np.inf))])
    return float(tried[np.abs(np.exp(tried) - value).argmin()])
