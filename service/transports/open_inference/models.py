"""The models that a bundle is to clients of the Open Inference Protocol, with their inputs and outputs.

Each model is an endpoint of `service.api.endpoints`: `misfit` is /score, `encoder` is /encode and `decoder` is /decode.
A model's version is the bundle's id: a client that names it is never answered by another bundle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from service.api.endpoints import ENDPOINTS, Endpoint
from service.bundle.manifest import Manifest
from service.errors import UnknownModel, quoted

# What GET /v2 says of this server. Triton calls these two extensions so.
SERVER = {"name": "misfit", "version": version("misfit"), "extensions": ["binary_tensor_data", "parameters"]}
PLATFORM = "misfit_onnx"
ENDPOINT_OF = {"misfit": "score", "encoder": "encode", "decoder": "decode"}


@dataclass(frozen=True)
class TensorSpec:
    """A tensor as a model's metadata describe it: -1 is an axis whose length the request decides.

    needs  the option that makes an answer have it; "" where every answer has it unless the client asks for others
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    needs: str = ""

    def describe(self) -> dict[str, object]:
        """Return the metadata of the tensor."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True)
class Model:
    """A model.

    bundle    the name of the bundle that it is of, "" for the default one
    inputs    those that every request brings
    optional  the names of further inputs
    outputs   all that an answer may have
    """

    name: str
    version: str
    endpoint: Endpoint
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    optional: tuple[str, ...] = ()
    bundle: str = ""

    @property
    def input_names(self) -> tuple[str, ...]:
        return (*(each.name for each in self.inputs), *self.optional)

    def describe(self) -> dict[str, object]:
        """Return the model's metadata, as GET /v2/models/NAME answers."""
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": PLATFORM,
            "inputs": [each.describe() for each in self.inputs],
            "outputs": [each.describe() for each in self.outputs],
        }


def list_models(manifest: Manifest, bundle: str = "") -> dict[str, Model]:
    """Return the models of a bundle by name. Only a bundle that can draw has a decoder.

    bundle  the bundle's name, which its models' names end with; "" for the default one
    """
    inputs, outputs = _list_inputs(manifest), _list_outputs(manifest)
    kinds = [kind for kind in ENDPOINT_OF if kind != "decoder" or manifest.capabilities.can_decode]
    models = [
        Model(
            f"{kind}-{bundle}" if bundle else kind,
            manifest.bundle_id,
            ENDPOINTS[ENDPOINT_OF[kind]],
            inputs[kind],
            outputs[kind],
            ("reference", "context") if kind == "misfit" else (),
            bundle,
        )
        for kind in kinds
    ]
    return {model.name: model for model in models}


def find_model(models: Mapping[str, Model], name: str, model_version: str) -> Model:
    """Return the model of that name; `model_version` may be "". Raises UnknownModel."""
    if name not in models:
        reason = ": the bundle has no decoder.onnx" if name.partition("-")[0] == "decoder" else ""
        raise UnknownModel(f"There is no model {quoted(name)}{reason}.", f"There are {', '.join(models)}.")
    model = models[name]
    if model_version not in ("", model.version):
        raise UnknownModel(
            f"The model {name} has no version {quoted(model_version)}.",
            f"Its version is the id of the bundle, {model.version}. Name that or none.",
        )
    return model


def _list_inputs(manifest: Manifest) -> dict[str, tuple[TensorSpec, ...]]:
    images = TensorSpec("images", "UINT8", (-1, *manifest.image.shape))
    latents = TensorSpec("latents", "FP32", (-1, manifest.latent_dim))
    return {"misfit": (images,), "encoder": (images,), "decoder": (latents,)}


def _list_outputs(manifest: Manifest) -> dict[str, tuple[TensorSpec, ...]]:
    dims = manifest.latent_dim
    error = TensorSpec("error", "BYTES", (-1,))
    scores = (
        TensorSpec("outlier_score", "FP64", (-1,)),
        TensorSpec("mahalanobis_squared", "FP64", (-1,)),
        TensorSpec("outlier_probability", "FP64", (-1,)),
        TensorSpec("is_outlier", "BOOL", (-1,)),
        TensorSpec("rank", "INT64", (-1,)),
        TensorSpec("is_foreign", "BOOL", (-1,), "foreign"),
        error,
        TensorSpec("reason", "BYTES", (-1,), "attributions"),
        *(TensorSpec(name, "FP64", (-1, dims), "attributions") for name in ATTRIBUTIONS),
        TensorSpec("nearest", "INT64", (-1, -1), "nearest"),
        TensorSpec("nearest_distance", "FP64", (-1, -1), "nearest"),
        TensorSpec("duplicates", "INT64", (-1,), "duplicates"),
        TensorSpec("answer", "BYTES", (1,), "output"),
    )
    encoded = (TensorSpec("mean", "FP32", (-1, dims)), TensorSpec("logvar", "FP32", (-1, dims)), error)
    pictures = (TensorSpec("images", "UINT8", (-1, *manifest.image.shape)),)
    return {"misfit": scores, "encoder": encoded, "decoder": pictures}


# The outputs that are fields of an item's attributions, and these fields.
ATTRIBUTIONS: dict[str, str] = {
    "attributions": "shapley",
    "attributions_odds": "shapley_odds",
    "conditional_z": "conditional_z",
    "marginal_z": "marginal_z",
}


def names_of(specs: Sequence[TensorSpec]) -> list[str]:
    return [each.name for each in specs]
