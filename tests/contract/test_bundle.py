"""The bundle: what is written is what is read, and every kind of damage is refused by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.bundle import population_file, projection_file, store
from service.bundle.manifest import FORMAT_VERSION, Capabilities, ImageSpec, Manifest, Parity
from service.bundle.projection_file import Projection
from service.core.latent import Latent
from service.core.population import Population
from service.core.types import DEFAULT_ESTIMATOR
from service.errors import BundleCorrupt, BundleIncompatible, BundleMissing

ROOT = Path(__file__).parents[2]

GRAPHS = {"encoder.onnx": b"stands for an encoder", "decoder.onnx": b"stands for a decoder"}
LATENT_DIM = 3


def population_of(*standard_deviations: float, size: int = 500) -> Population:
    random = np.random.default_rng(1)
    mean = random.normal(size=(size, len(standard_deviations))) * standard_deviations
    return Population.from_latents(np.stack((mean, np.full_like(mean, -2.0)), axis=1))


def manifest_of(**fields: Any) -> Manifest:
    defaults: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "model": "tiny",
        "image": ImageSpec(height=8, width=8, channels=3),
        "latent_dim": LATENT_DIM,
        "latents": (
            Latent(index=0, name="wall hue", factor="wall hue", mutual_information=1.9, dead=False),
            Latent(index=1, name="latent 1", dead=False),
            Latent(index=2, name="latent 2 (dead)", dead=True),
        ),
        "parity": Parity(batch_sizes=(1, 2), latents_relative=1.5e-7, pixels_grey_levels=1),
        "metrics": {"mig": 0.61, "mig_per_factor": {"wall hue": 0.9}},
        "training": {"preset": "tiny", "seed": 3, "größe": "übrig"},
        "data": {"name": "shapes3d", "source": "rendered"},
        "licence": "Apache-2.0",
    }
    return Manifest.model_validate({**defaults, **fields})


POPULATION = population_of(1.0, 2.0, 0.01)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    store.write(tmp_path / "tiny", manifest_of(), GRAPHS, POPULATION)
    return tmp_path / "tiny"


def edit(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest by hand, without making its hash right again."""
    path = directory / store.MANIFEST
    fields = json.loads(path.read_bytes())
    change(fields)
    path.write_text(json.dumps(fields), encoding="utf-8")


def seal(directory: Path) -> None:
    """Make every hash right again, as somebody would who forges a bundle."""
    path = directory / store.MANIFEST
    manifest = Manifest.model_validate_json(path.read_bytes())
    hashes = {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in manifest.files}
    manifest = manifest.model_copy(update={"files": hashes})
    manifest = manifest.model_copy(update={"bundle_id": manifest.content_hash()})
    path.write_text(manifest.model_dump_json(), encoding="utf-8")


# --- round trip


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = store.write(tmp_path / "deep" / "tiny", manifest_of(), GRAPHS, POPULATION, card="# tiny\n")
    read = store.load(tmp_path / "deep" / "tiny")
    assert read.manifest == written.manifest
    assert read.directory == written.directory
    unsealed = read.manifest.model_copy(update={"files": {}, "bundle_id": ""})
    assert unsealed == manifest_of()
    assert read.manifest.dead_dims == (2,)
    for field in ("location", "covariance", "posterior_variance"):
        np.testing.assert_array_equal(getattr(read.population, field), getattr(POPULATION, field))
    assert read.population.size == POPULATION.size
    assert (read.directory / store.CARD).read_text() == "# tiny\n"
    for name, content in GRAPHS.items():
        assert (read.directory / name).read_bytes() == content


def test_nothing_else_is_left_beside_the_bundle(directory: Path) -> None:
    assert [path.name for path in directory.parent.iterdir()] == ["tiny"]
    assert sorted(path.name for path in directory.iterdir()) == sorted((store.MANIFEST, store.POPULATION, *GRAPHS))
    assert directory.stat().st_mode & 0o055, "a service that runs as another user must be able to read it"


def test_bundle_id_is_a_function_of_the_content(directory: Path, tmp_path: Path) -> None:
    again = store.write(tmp_path / "again", manifest_of(), GRAPHS, POPULATION)
    assert again.manifest.bundle_id == store.load(directory).manifest.bundle_id
    for other in (
        store.write(tmp_path / "a", manifest_of(model="other"), GRAPHS, POPULATION),
        store.write(tmp_path / "b", manifest_of(), {**GRAPHS, "encoder.onnx": b"another"}, POPULATION),
        store.write(tmp_path / "c", manifest_of(), GRAPHS, population_of(1.0, 2.0, 0.02)),
    ):
        assert other.manifest.bundle_id != again.manifest.bundle_id


def test_a_bundle_may_carry_further_graphs_and_they_are_verified(tmp_path: Path) -> None:
    store.write(tmp_path / "b", manifest_of(), {**GRAPHS, "saliency.onnx": b"third"}, POPULATION)
    assert store.load(tmp_path / "b").manifest.capabilities.has_saliency
    (tmp_path / "b" / "saliency.onnx").write_bytes(b"other")
    with pytest.raises(BundleCorrupt, match=r"saliency\.onnx has sha256"):
        store.load(tmp_path / "b")


def test_a_bundle_needs_no_heat_maps_and_their_parity_is_kept_where_it_has_them(
    directory: Path, tmp_path: Path
) -> None:
    without = store.load(directory).manifest
    assert not without.capabilities.has_saliency
    assert without.parity.saliency_relative is None
    assert "saliency" not in (directory / store.MANIFEST).read_text()
    parity = without.parity.model_copy(update={"saliency_relative": 2e-6})
    store.write(tmp_path / "b", manifest_of(parity=parity), {**GRAPHS, "saliency.onnx": b"third"}, POPULATION)
    assert store.load(tmp_path / "b").manifest.parity.saliency_relative == 2e-6


def test_a_bundle_may_name_the_estimator_of_its_contexts(directory: Path, tmp_path: Path) -> None:
    without = store.load(directory).manifest
    assert without.default_estimator == DEFAULT_ESTIMATOR
    assert "estimator" not in (directory / store.MANIFEST).read_text(), "older bundles keep their hashes"
    store.write(tmp_path / "b", manifest_of(estimator="mixture"), GRAPHS, POPULATION)
    assert store.load(tmp_path / "b").manifest.default_estimator == "mixture"
    edit(tmp_path / "b", lambda fields: fields.update(estimator="magic"))
    with pytest.raises(BundleCorrupt, match="estimator"):
        store.load(tmp_path / "b")


def test_the_card_may_be_edited_by_hand(directory: Path) -> None:
    (directory / store.CARD).write_text("corrected")
    store.load(directory)


def test_writing_replaces_the_bundle_and_its_card(directory: Path) -> None:
    (directory / store.CARD).write_text("about the older model")
    store.write(directory, manifest_of(model="newer"), GRAPHS, POPULATION)
    assert store.load(directory).manifest.model == "newer"
    assert not (directory / store.CARD).exists()


def test_a_directory_that_is_no_bundle_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "holiday.png").write_bytes(b"irreplaceable")
    with pytest.raises(FileExistsError, match="not a bundle"):
        store.write(tmp_path, manifest_of(), GRAPHS, POPULATION)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.png"]


def test_a_bundle_that_could_not_be_loaded_is_not_written_and_the_old_one_stays(directory: Path) -> None:
    before = store.load(directory).manifest
    with pytest.raises(BundleCorrupt, match=r"location has shape \(2,\)"):
        store.write(directory, manifest_of(), GRAPHS, population_of(1.0, 2.0))
    with pytest.raises(BundleCorrupt, match=r"does not list encoder\.onnx"):
        store.write(directory, manifest_of(), {"decoder.onnx": b"alone"}, POPULATION)
    assert store.load(directory).manifest == before
    assert [path.name for path in directory.parent.iterdir()] == ["tiny"]


def test_population_moments_match_their_definition() -> None:
    latents = np.random.default_rng(2).normal(size=(40, 2, 5)).astype(np.float32)
    population = Population.from_latents(latents)
    mean = latents[:, 0].astype(np.float64)
    location = mean.sum(axis=0) / 40
    covariance = sum(np.outer(row - location, row - location) for row in mean) / 39
    np.testing.assert_allclose(population.location, location, rtol=1e-12)
    np.testing.assert_allclose(population.covariance, covariance, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(population.posterior_variance, np.exp(latents[:, 1].astype(np.float64)).mean(axis=0))
    assert population.size == 40


# --- damage


def cut_short(directory: Path) -> None:
    path = directory / "encoder.onnx"
    path.write_bytes(path.read_bytes()[:-1])


def without(*names: str) -> Callable[[dict[str, Any]], object]:
    return lambda fields: [fields["files"].pop(name) for name in names]


def test_a_bundle_without_a_decoder_is_a_bundle_that_draws_nothing(tmp_path: Path) -> None:
    store.write(tmp_path / "b", manifest_of(), {"encoder.onnx": b"an encoder"}, POPULATION)
    assert store.load(tmp_path / "b").manifest.capabilities == Capabilities(
        can_decode=False, has_saliency=False, has_uncertainty=True
    )


def test_the_kind_of_a_model_is_in_the_manifest_unless_it_is_a_vae(directory: Path, tmp_path: Path) -> None:
    assert store.load(directory).manifest.capabilities.has_uncertainty
    assert "kind" not in (directory / store.MANIFEST).read_text()
    size = manifest_of().latent_dim
    content = projection_file.to_npz(
        Projection(
            mean=np.zeros(3),
            axes=np.zeros((3, size)),
            direction=np.zeros(3),
            principal=np.zeros((3, 1)),
            property_mean=np.zeros(0),
            property_spread=np.ones(0),
            logvar=np.zeros(size),
            direction_reach=np.ones(1),
            property_reach=np.ones(0),
        )
    )
    files = {"encoder.onnx": b"an encoder", projection_file.PROJECTION: content}
    store.write(tmp_path / "b", manifest_of(kind="backbone"), files, POPULATION)
    assert not store.load(tmp_path / "b").manifest.capabilities.has_uncertainty
    with pytest.raises(BundleCorrupt, match=r"does not list projection\.npz"):
        store.write(tmp_path / "c", manifest_of(kind="backbone"), {"encoder.onnx": b"an encoder"}, POPULATION)


def rename_file(fields: dict[str, Any], name: str) -> None:
    fields["files"][name] = fields["files"]["encoder.onnx"]


DAMAGE: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "manifest missing": (lambda d: (d / "manifest.json").unlink(), BundleMissing, r"manifest\.json cannot be read"),
    "encoder missing": (lambda d: (d / "encoder.onnx").unlink(), BundleMissing, r"encoder\.onnx cannot be read"),
    "decoder missing": (lambda d: (d / "decoder.onnx").unlink(), BundleMissing, r"decoder\.onnx cannot be read"),
    "population missing": (
        lambda d: (d / "population.npz").unlink(), BundleMissing, r"population\.npz cannot be read"
    ),
    "file cut short": (cut_short, BundleCorrupt, r"encoder\.onnx has sha256 [0-9a-f]{64}, but"),
    "file changed": (
        lambda d: (d / "decoder.onnx").write_bytes(b"malicious"), BundleCorrupt, r"decoder\.onnx has sha256"
    ),
    "manifest empty": (lambda d: (d / "manifest.json").write_bytes(b""), BundleCorrupt, "not a valid manifest"),
    "manifest cut short": (
        lambda d: (d / "manifest.json").write_bytes((d / "manifest.json").read_bytes()[:-9]),
        BundleCorrupt,
        "not a valid manifest",
    ),
    "manifest not an object": (
        lambda d: (d / "manifest.json").write_text('["format_version"]'), BundleCorrupt, "not a valid manifest"
    ),
    "manifest nested without end": (
        lambda d: (d / "manifest.json").write_text("[" * 200_000), BundleCorrupt, "not a valid manifest"
    ),
    "manifest not text": (
        lambda d: (d / "manifest.json").write_bytes(b"\xff\xfe\x00"), BundleCorrupt, "not a valid manifest"
    ),
    "no version": (lambda d: edit(d, lambda m: m.pop("format_version")), BundleCorrupt, "format_version: Field req"),
    "later version": (
        lambda d: edit(d, lambda m: m.update(format_version=2, shape="unheard of")),
        BundleIncompatible,
        "has format_version 2; this misfit reads 1",
    ),
    "edited field": (lambda d: edit(d, lambda m: m.update(model="better")), BundleCorrupt, "says bundle_id"),
    "edited bundle_id": (lambda d: edit(d, lambda m: m.update(bundle_id="0" * 64)), BundleCorrupt, "says bundle_id"),
    "unknown field": (lambda d: edit(d, lambda m: m.update(extra=1)), BundleCorrupt, "extra: Extra inputs"),
    "field missing": (lambda d: edit(d, lambda m: m.pop("image")), BundleCorrupt, "image: Field required"),
    "encoder not listed": (
        lambda d: edit(d, without("encoder.onnx")), BundleCorrupt, r"does not list encoder\.onnx"
    ),
    "population not listed": (
        lambda d: edit(d, without("population.npz")), BundleCorrupt, r"does not list population\.npz"
    ),
    "path outside": (
        lambda d: edit(d, lambda m: rename_file(m, "../encoder.onnx")), BundleCorrupt, r"files\.\.\./encoder\.onnx"
    ),
    "absolute path": (lambda d: edit(d, lambda m: rename_file(m, "/etc/passwd")), BundleCorrupt, "/etc/passwd"),
    "name with a nul": (lambda d: edit(d, lambda m: rename_file(m, "a\0b")), BundleCorrupt, "not a valid manifest"),
    "hash not a hash": (
        lambda d: edit(d, lambda m: m["files"].update({"encoder.onnx": "yes"})), BundleCorrupt, r"files\.encoder\.onnx"
    ),
    "two channels": (lambda d: edit(d, lambda m: m["image"].update(channels=2)), BundleCorrupt, r"image\.channels"),
    "no pixels": (lambda d: edit(d, lambda m: m["image"].update(height=0)), BundleCorrupt, r"image\.height"),
    "latent count": (lambda d: edit(d, lambda m: m.update(latent_dim=4)), BundleCorrupt, r"dimensions 0\.\.3"),
    "latents out of order": (
        lambda d: edit(d, lambda m: m["latents"].reverse()), BundleCorrupt, r"dimensions 0\.\.2 in order"
    ),
    "two latents of one name": (
        lambda d: edit(d, lambda m: m["latents"][1].update(name="wall hue")), BundleCorrupt, "names must differ"
    ),
    "not finite": (
        lambda d: edit(d, lambda m: m["parity"].update(latents_relative=float("nan"))),
        BundleCorrupt,
        r"parity\.latents_relative",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_refused_by_name(directory: Path, name: str) -> None:
    damage, error, message = DAMAGE[name]
    damage(directory)
    with pytest.raises(error, match=message) as refusal:
        store.load(directory)
    assert type(refusal.value) is error
    assert str(directory) in refusal.value.message, "the operator must see which bundle it is"
    assert refusal.value.hint


def test_no_bundle_at_all(tmp_path: Path) -> None:
    for nothing in (tmp_path / "nowhere", tmp_path / "file" / "bundle"):
        (tmp_path / "file").touch()
        with pytest.raises(BundleMissing, match=r"manifest\.json cannot be read") as refusal:
            store.load(nothing)
        assert "MISFIT_BUNDLE" in refusal.value.hint


# --- a population that its hash vouches for, and that still is none


def npz(**arrays: Any) -> bytes:
    moments: dict[str, Any] = {
        "location": POPULATION.location,
        "covariance": POPULATION.covariance,
        "posterior_variance": POPULATION.posterior_variance,
        "size": np.int64(POPULATION.size),
    }
    buffer = BytesIO()
    np.savez(buffer, **{name: value for name, value in {**moments, **arrays}.items() if value is not None})
    return buffer.getvalue()


def npy(array: Any, allow_pickle: bool = False) -> bytes:
    buffer = BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


class Exploit:
    """Unpickling this would leave a mark."""

    unpickled = False

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return setattr, (Exploit, "unpickled", True)


FORGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "cannot be read"),
    "text": (b"location,covariance", "cannot be read"),
    "zip cut short": (npz()[:-30], "cannot be read"),
    "one array instead of several": (npy(POPULATION.location), "cannot be read"),
    "an array missing": (npz(posterior_variance=None), "posterior_variance"),
    "a pickle": (npz(location=np.array([Exploit()] * LATENT_DIM, dtype=object)), "cannot be read"),
    "text values": (npz(location=np.array(["a", "b", "c"])), "cannot be read"),
    "size not a number": (npz(size=np.arange(3)), "cannot be read"),
    "another latent count": (npz(location=np.zeros(LATENT_DIM + 1)), r"location has shape \(4,\)"),
    "covariance not square": (npz(covariance=np.ones((3, 2))), r"covariance has shape \(3, 2\)"),
    "not finite": (npz(covariance=np.full((3, 3), np.inf)), "not finite"),
    "not symmetric": (npz(covariance=np.eye(3) + np.eye(3, k=1)), "symmetric"),
    "no posterior variance": (npz(posterior_variance=np.zeros(3)), "positive posterior variances"),
    "one image": (npz(size=np.int64(1)), "size of at least 2"),
    "other dead latents": (npz(covariance=np.eye(3)), r"calls the latents \[2\] dead"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_population_is_refused(directory: Path, name: str) -> None:
    content, message = FORGED[name]
    (directory / population_file.POPULATION).write_bytes(content)
    seal(directory)
    with pytest.raises(BundleCorrupt, match=message) as refusal:
        store.load(directory)
    assert population_file.POPULATION in refusal.value.message
    assert not Exploit.unpickled


def test_sealing_alone_does_no_damage(directory: Path) -> None:
    (directory / population_file.POPULATION).write_bytes(npz())
    seal(directory)
    store.load(directory)


# --- what a manifest may say


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_cannot_hold_is_refused_before_it_is_written(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        manifest_of(metrics={"per_factor": {"shape": value}})


@pytest.mark.parametrize("directory", sorted((ROOT / "service" / "bundles").iterdir()), ids=lambda path: path.name)
def test_every_bundle_that_ships_is_whole_and_has_a_sample_of_its_population(directory):
    shipped = store.load(directory)
    assert shipped.population.sample is not None
    assert shipped.population.familiarity is not None
