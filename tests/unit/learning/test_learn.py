"""Learning a folder: the bundle that comes of it, what it says of images, and what stops it."""

import json
import shutil

import numpy as np
import photographs
import pytest
from PIL import Image

from service.bundle import store
from service.bundle.backbone_file import BACKBONES, DEFAULT_BACKBONE, FEATURES, PROVENANCE
from service.core.detect.scoring import score
from service.core.explain.attribution import attribute, gradients
from service.core.explain.attribution import order as attribution_order
from service.core.latent import CONTENT
from service.errors import BundleCorrupt, InvalidInput
from service.images.properties import PROPERTIES
from service.inference.backbone import BackboneHead
from service.inference.onnx_runtime import OnnxNetworks
from service.learning import folder, learn
from service.pipeline.explain.map_plan import plan_maps

BACKBONE = BACKBONES / DEFAULT_BACKBONE / FEATURES
EACH = 40


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("photographs")
    photographs.write_tree(root, EACH)
    (root / "discs" / "broken.jpg").write_bytes(b"\xff\xd8\xff but no more")
    (root / "notes.txt").write_text("no image")
    (root / ".hidden").mkdir()
    Image.new("RGB", (30, 30)).save(root / ".hidden" / "left_out.png")
    return root


@pytest.fixture(scope="module")
def learned(tree, tmp_path_factory):
    done, total = [], []
    result = learn.learn(
        tree, tmp_path_factory.mktemp("out") / "mine", backbone=BACKBONE, progress=done.append, started=total.append
    )
    assert sum(done) == total[0] == 3 * EACH + 1
    return result


@pytest.fixture(scope="module")
def networks(learned):
    return OnnxNetworks(learned.bundle)


def read(networks_bundle, files):
    return folder.read(files, networks_bundle.manifest.image).pixels


def test_the_bundle_is_verified_and_says_what_it_is(learned, tree):
    bundle = store.load(learned.bundle.directory)
    manifest = bundle.manifest
    assert manifest.kind == "backbone"
    assert manifest.capabilities.has_saliency
    assert not manifest.capabilities.can_decode
    assert not manifest.capabilities.has_uncertainty
    assert learned.photographs == bundle.population.size == 3 * EACH
    assert [latent.name for latent in manifest.latents if latent.unit] == [each.name for each in PROPERTIES]
    assert bundle.population.graded
    card = (bundle.directory / store.CARD).read_text()
    assert tree.name in card
    assert "1 files could not be read" in card
    assert not list(bundle.directory.parent.glob(".*learning*"))


def test_what_cannot_be_read_is_named(learned, tree):
    ((path, reason),) = learned.unreadable
    assert path == tree / "discs" / "broken.jpg"
    assert "cannot be" in reason


def test_the_committed_backbone_is_the_one_whose_provenance_is_committed():
    import hashlib

    provenance = json.loads(BACKBONE.with_name(PROVENANCE).read_text())
    assert hashlib.sha256(BACKBONE.read_bytes()).hexdigest() == provenance["graph_sha256"]
    assert provenance["parity"]["pooled_features_relative"] < 1e-4


def test_the_population_is_centred_and_scaled(learned):
    population = learned.bundle.population
    np.testing.assert_allclose(population.location, 0, atol=0.02)
    variances = np.diag(population.covariance)
    np.testing.assert_allclose(variances[variances > 0], 1, atol=0.05)


def test_another_kind_among_one_ranks_first(learned, networks, tmp_path):
    files = photographs.write_tree(tmp_path, 30, ("discs",), seed=7)
    files += photographs.write_tree(tmp_path, 3, ("grid",), seed=8)
    scores = score(
        networks.encode(read(learned.bundle, files)),
        learned.bundle.population,
        estimator=learned.bundle.manifest.estimator,
    )
    assert set(np.flatnonzero(scores.rank <= 3)) == {30, 31, 32}


def test_foreign_images_are_far_from_the_collection_and_its_own_are_not(learned, networks, tmp_path):
    own = photographs.write_tree(tmp_path / "own", 12, seed=9)
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (8, *learned.bundle.manifest.image.shape)).astype(np.uint8)
    familiarity = learned.bundle.population.familiarity
    assert familiarity is not None
    known = networks.encode_checked(read(learned.bundle, own)).reconstruction_error
    strange = networks.encode_checked(noise).reconstruction_error
    assert (strange > familiarity.margin * familiarity.high).all()
    assert (known > familiarity.margin * familiarity.high).mean() <= 0.1


def test_the_heat_map_of_all_content_adds_up_to_its_share_of_the_distance(learned, networks, tree):
    pixels, latents = read(learned.bundle, photographs_of(tree, 30)), learned.bundle.manifest.latents
    encoded, population = networks.encode(pixels), learned.bundle.population
    context = score(encoded, population, estimator=learned.bundle.manifest.estimator).context
    terms, slopes = attribute(encoded, context, population), gradients(encoded, context, population)
    plan = plan_maps(attribution_order(terms, context), slopes > 0, np.sign(slopes), slopes, latents, 1)
    maps = networks.saliency(pixels)
    even = context.location[:, None, None] / np.prod(maps.shape[2:])
    signed = np.einsum("ktl,klhw->kthw", plan.weights, maps - even)
    is_content = [latent.factor == CONTENT for latent in latents]
    share = terms.shapley[:, is_content].sum(axis=1)
    np.testing.assert_allclose(signed.sum(axis=(1, 2, 3)), share, rtol=1e-3, atol=1e-3 * share.max())


def test_heat_maps_of_content_add_up_to_the_latent(learned, networks, tree):
    pixels = read(learned.bundle, photographs_of(tree, 5))
    latents, maps = networks.encode(pixels)[:, 0], networks.saliency(pixels)
    measured = np.array([latent.unit is not None for latent in learned.bundle.manifest.latents])
    np.testing.assert_allclose(maps.sum(axis=(2, 3))[:, ~measured], latents[:, ~measured], atol=1e-3)
    assert (maps[:, measured] == 0).all()


def photographs_of(tree, count):
    return folder.find(tree)[1 : count + 1]


def test_rows_do_not_depend_on_what_comes_with_them(networks, learned, tree):
    pixels = read(learned.bundle, photographs_of(tree, 40))
    np.testing.assert_allclose(networks.encode(pixels)[7:8], networks.encode(pixels[7:8]), atol=1e-4)


@pytest.fixture
def copy(learned, tmp_path):
    shutil.copytree(learned.bundle.directory, tmp_path / "copy")
    return tmp_path / "copy"


def test_the_owner_may_name_latents(learned, copy):
    (copy / "names.json").write_text('{"content 2": "discs or bars", "noise": "grain"}')
    bundle = store.load(copy)
    names = [latent.name for latent in bundle.manifest.latents]
    assert "discs or bars" in names
    assert "grain" in names
    assert "content 2" not in names
    assert bundle.manifest.bundle_id == learned.bundle.manifest.bundle_id
    assert [latent.unit for latent in bundle.manifest.latents] == [
        latent.unit for latent in learned.bundle.manifest.latents
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json", "cannot be used"),
        ('{"content 2": ""}', "cannot be used"),
        ('{"content 99": "hands"}', "'content 99', which is no latent"),
        ('{"content 1": "content 2"}', "gives two latents one name"),
    ],
)
def test_names_that_do_not_fit_are_refused(copy, content, message):
    (copy / "names.json").write_text(content)
    with pytest.raises(BundleCorrupt, match=message):
        store.load(copy)


def test_interrupted_it_goes_on_where_it_stopped(tree, tmp_path):
    class Interrupted(Exception):
        pass

    def stop(done):
        raise Interrupted

    out = tmp_path / "mine"
    with pytest.raises(Interrupted):
        learn.learn(tree, out, backbone=BACKBONE, progress=stop)
    (cache,) = tmp_path.glob(".mine.learning-*")
    kept = {path: path.stat().st_mtime_ns for path in cache.glob("*.npz")}
    assert kept
    assert not out.exists()
    times = {}

    def look(done):
        times.update({path: path.stat().st_mtime_ns for path in kept if path.exists()})

    learn.learn(tree, out, backbone=BACKBONE, progress=look)
    assert times == kept
    assert not cache.exists()
    assert store.load(out).manifest.kind == "backbone"


@pytest.mark.parametrize("count", [1, learn.FEWEST - 1])
def test_too_few_photographs_are_refused(tmp_path, count):
    photographs.write_tree(tmp_path / "few", count, ("discs",))
    with pytest.raises(InvalidInput, match=f"holds {count} photographs that can be read; at least 50"):
        learn.learn(tmp_path / "few", tmp_path / "out", backbone=BACKBONE)
    assert not (tmp_path / "out").exists()


def test_copies_of_one_photograph_are_refused(tmp_path):
    (first,) = photographs.write_tree(tmp_path / "alike", 1, ("discs",))
    for number in range(60):
        shutil.copy(first, first.with_name(f"copy{number}{first.suffix}"))
    with pytest.raises(InvalidInput, match="look alike"):
        learn.learn(tmp_path / "alike", tmp_path / "out", backbone=BACKBONE)


def test_unreadable_files_alone_are_refused_with_a_reason(tmp_path):
    (tmp_path / "broken").mkdir()
    for number in range(3):
        (tmp_path / "broken" / f"{number}.png").write_bytes(b"nothing")
    with pytest.raises(InvalidInput, match=r"0 photographs that can be read, and 3 files that cannot \(7 bytes"):
        learn.learn(tmp_path / "broken", tmp_path / "out", backbone=BACKBONE)


@pytest.mark.parametrize(("name", "message"), [("missing", "is no folder"), ("empty", "holds no image file")])
def test_a_folder_without_images_is_refused(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match=message):
        learn.learn(tmp_path / name, tmp_path / "out", backbone=BACKBONE)


def test_a_directory_with_other_files_is_left_alone(tree, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(FileExistsError, match="left alone"):
        learn.learn(tree, tmp_path, backbone=BACKBONE)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_that_is_no_graph_is_refused(tree, tmp_path):
    graph = tmp_path / "weights.onnx"
    graph.write_bytes(b"no graph")
    with pytest.raises(BundleCorrupt, match="cannot be opened"):
        learn.learn(tree, tmp_path / "out", backbone=graph)


def test_a_graph_of_another_kind_is_refused(tree, tmp_path):
    from service.errors import BundleIncompatible
    from service.settings import BUNDLES

    with pytest.raises(BundleIncompatible, match="a backbone maps images"):
        learn.learn(tree, tmp_path / "out", backbone=BUNDLES / "shapes3d" / "encoder.onnx")


def test_drawn_pictures_keep_the_properties_of_files(learned, networks, tree):
    files = photographs_of(tree, 3)
    read_files = folder.read(files, learned.bundle.manifest.image)
    head = BackboneHead(learned.bundle.projection)
    encoded = networks.encode(read_files.pixels)
    whole = head.with_files(encoded, read_files.sizes)
    named = [latent.name for latent in learned.bundle.manifest.latents]
    assert named[-2:] == ["aspect ratio", "pixel count"]
    assert not encoded[:, 0, -2:].any()
    assert whole[:, 0, -2:].any()
    np.testing.assert_array_equal(whole[..., :-2], encoded[..., :-2])
    np.testing.assert_array_equal(head.with_files_of(encoded, whole[:, 0]), whole)
