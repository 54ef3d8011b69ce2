import zlib
from itertools import product
from pathlib import Path

import numpy as np
import pytest

h5py = pytest.importorskip("h5py")
pytest.importorskip("skimage")

from train.data.shapes3d import dataset as shapes3d  # noqa: E402
from train.data.shapes3d import fidelity as shapes3d_fidelity  # noqa: E402
from train.data.shapes3d import light as shapes3d_light  # noqa: E402
from train.data.shapes3d import scene  # noqa: E402

REFERENCE = Path(__file__).parents[2] / "data" / "shapes3d_reference"

# Values of the factors, written out as the data set's own page gives them.
SCALES = [0.75 + 0.5 * step / 7 for step in range(8)]
ORIENTATIONS = [-30 + 60 * step / 14 for step in range(15)]
CLASSES = np.array(
    [[0, 0, 0, 0, 0, 0], [9, 9, 9, 7, 3, 14], [3, 5, 7, 4, 1, 11], [1, 2, 0, 6, 2, 7], [1, 2, 0, 6, 2, 7]]
)


def official_labels(classes):
    hues = classes[:, :3] / 10
    scales, orientations = np.array(SCALES)[classes[:, 3]], np.array(ORIENTATIONS)[classes[:, 5]]
    return np.column_stack([hues, scales, classes[:, 4], orientations]).astype(np.float64)


def write(path, images, labels, **storage):
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, **storage)
        file["labels"] = labels
    return path


@pytest.fixture(scope="module")
def official():
    """A few images of noise, under labels of the official form."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, shapes3d.FACTOR_SIZES, (23, 6))
    return rng.integers(0, 256, (23, 64, 64, 3), dtype=np.uint8), classes


@pytest.mark.parametrize(
    "storage",
    [
        {"chunks": (5, 64, 64, 3), "compression": "gzip"},
        {
            "chunks": (7, 16, 48, 1),
            "compression": "gzip",
            "compression_opts": 9,
        },  # chunks that cut images, and overhang
        {"chunks": (5, 64, 64, 3), "compression": "gzip", "shuffle": True},
        {"chunks": (5, 64, 64, 3)},
        {},
    ],
    ids=["gzip", "cut", "shuffled", "plain chunks", "contiguous"],
)
def test_load_reads_every_way_of_storing(tmp_path, official, storage):
    images, classes = official
    path = write(tmp_path / "3dshapes.h5", images, official_labels(classes), **storage)
    loaded = shapes3d.load(path)
    np.testing.assert_array_equal(loaded.images, images)
    np.testing.assert_array_equal(loaded.factors, classes)
    assert loaded.factors.dtype == np.int64
    assert (loaded.name, loaded.source) == ("shapes3d", "official")
    assert loaded.factor_names == ("floor hue", "wall hue", "object hue", "scale", "shape", "orientation")
    assert loaded.factor_sizes == (10, 10, 10, 8, 4, 15)

    some = [22, 3, 3, 0, 11]  # unordered, one twice
    subset = shapes3d.load(path, some)
    np.testing.assert_array_equal(subset.images, images[some])
    np.testing.assert_array_equal(subset.factors, classes[some])


def test_load_of_no_indices_is_empty(tmp_path, official):
    images, classes = official
    path = write(tmp_path / "3dshapes.h5", images, official_labels(classes))
    assert shapes3d.load(path, []).images.shape == (0, 64, 64, 3)


def test_load_refuses_what_is_not_3d_shapes(tmp_path, official):
    images, classes = official
    labels = official_labels(classes)
    with pytest.raises(FileNotFoundError, match="render shapes3d"):
        shapes3d.load(tmp_path / "absent.h5")

    text = tmp_path / "text.h5"
    text.write_text("not HDF5")
    with pytest.raises(ValueError, match="cannot be read as HDF5"):
        shapes3d.load(text)

    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["latents"] = labels
    with pytest.raises(ValueError, match=r"holds \['latents'\], and no images or labels"):
        shapes3d.load(tmp_path / "other.h5")

    with pytest.raises(ValueError, match=r"expected uint8 \(N, 64, 64, 3\)"):
        shapes3d.load(write(tmp_path / "small.h5", images[:, :32], labels))
    with pytest.raises(ValueError, match=r"expected uint8 \(N, 64, 64, 3\)"):
        shapes3d.load(write(tmp_path / "float.h5", images / 255, labels))
    with pytest.raises(ValueError, match=r"labels are \(22, 6\), expected \(23, 6\)"):
        shapes3d.load(write(tmp_path / "short.h5", images, labels[:-1]))

    labels[4, 3] = 0.8
    with pytest.raises(ValueError, match=r"0\.8 is no scale of 3D Shapes"):
        shapes3d.load(write(tmp_path / "labels.h5", images, labels))


@pytest.mark.parametrize("indices", [[-1], [23], [[0, 1]]])
def test_load_refuses_indices_that_are_not_there(tmp_path, official, indices):
    images, classes = official
    path = write(tmp_path / "3dshapes.h5", images, official_labels(classes))
    with pytest.raises(ValueError, match="from 0 to 22"):
        shapes3d.load(path, indices)


def test_load_refuses_damaged_images(tmp_path, official):
    images, classes = official
    path = write(tmp_path / "3dshapes.h5", images, official_labels(classes), chunks=(23, 64, 64, 3), compression="gzip")
    with h5py.File(path, "r") as file:
        start = file["images"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[start : start + 100] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read"):
        shapes3d.load(path)


def test_render_writes_the_official_layout(tmp_path, monkeypatch):
    """The whole path, on a data set of 2 hues and 4 geometries."""
    geometries = tuple(product([0, 5], [1], [0, 14]))
    monkeypatch.setattr(shapes3d, "HUE_COUNT", 2)
    monkeypatch.setattr(shapes3d, "LEVEL_OF_HUE", shapes3d.LEVEL_OF_HUE[:2])
    monkeypatch.setattr(shapes3d, "GEOMETRIES", geometries)
    monkeypatch.setattr(shapes3d, "CHUNK", 2)
    hues = (np.arange(2) / 10,) * 3
    written = (*hues, np.array(SCALES)[[0, 5]], np.array([1.0]), np.array(ORIENTATIONS)[[0, 14]])
    with monkeypatch.context() as patch:
        patch.setattr(shapes3d, "FACTOR_VALUES", written)
        shapes3d.render(tmp_path / "shapes.h5", workers=2)
    assert [path.name for path in tmp_path.iterdir()] == ["shapes.h5"]

    classes = np.array([(*hue, *geometry) for hue in product(range(2), repeat=3) for geometry in geometries])
    with h5py.File(tmp_path / "shapes.h5", "r") as file:
        assert (file["images"].dtype, file["images"].shape) == (np.uint8, (32, 64, 64, 3))
        assert (file["labels"].dtype, file["labels"].shape) == (np.float64, (32, 6))
        np.testing.assert_allclose(file["labels"][:], official_labels(classes))
        np.testing.assert_array_equal(file["images"][:], shapes3d.frames(classes))
    loaded = shapes3d.load(tmp_path / "shapes.h5")
    assert loaded.source == "rendered"
    np.testing.assert_array_equal(loaded.factors, classes)


def test_the_last_factor_varies_fastest():
    assert len(shapes3d.GEOMETRIES) == 480
    assert shapes3d.GEOMETRIES[:16] == (*((0, 0, orientation) for orientation in range(15)), (0, 1, 0))
    for values, expected in zip(shapes3d.FACTOR_VALUES[3:], (SCALES, range(4), ORIENTATIONS), strict=True):
        np.testing.assert_allclose(values, list(expected))


def test_an_interrupted_render_leaves_no_file(tmp_path, monkeypatch):
    def interrupt(images):
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes3d, "GEOMETRIES", ((0, 0, 0),))
    monkeypatch.setattr(shapes3d, "_compressed", interrupt)
    with pytest.raises(KeyboardInterrupt):
        shapes3d.render(tmp_path / "shapes.h5")
    assert not list(tmp_path.iterdir())


def test_frames_keep_the_order_asked_for_and_repeat_themselves():
    images = shapes3d.frames(CLASSES)
    assert (images.dtype, images.shape) == (np.uint8, (5, 64, 64, 3))
    np.testing.assert_array_equal(images[3], images[4])
    np.testing.assert_array_equal(shapes3d.frames(CLASSES[::-1]), images[::-1])


@pytest.mark.parametrize(
    "factors", [[0, 0, 0, 0, 0, 0], [[0, 0, 0, 0, 0]], [[10, 0, 0, 0, 0, 0]], [[0, 0, 0, 0, 0, -1]]]
)
def test_frames_refuse_impossible_factors(factors):
    with pytest.raises(ValueError, match="factor"):
        shapes3d.frames(factors)


def test_an_image_is_the_downscaled_scene_of_its_hues():
    """The sum of separately downscaled surfaces, against colouring the sub-samples and downscaling once."""
    import colorsys

    from PIL import Image

    floor, wall, thing, *geometry = CLASSES[2].tolist()
    seen = shapes3d_light.samples(*geometry)
    hues = np.array([(0, 0, 0), *(colorsys.hsv_to_rgb(hue / 10, 1, 1) for hue in (floor, wall, thing))])
    colours = 255 * np.clip(seen.intensity[:, None] * hues[seen.surface] + seen.gloss[:, None], 0, 1)
    colours[seen.surface == scene.SKY] = (153, 226, 249)
    side = 64 * scene.SUPERSAMPLING
    channels = [Image.fromarray(channel.reshape(side, side).astype(np.float32)) for channel in colours.T]
    small = np.dstack([channel.resize((64, 64), Image.Resampling.LANCZOS) for channel in channels])
    expected = np.clip(small, 0, 255)
    assert np.abs(shapes3d.frames(CLASSES[2:3])[0] - expected).max() < 0.5 + 3 / 2**shapes3d.FRACTION_BITS


@pytest.mark.parametrize("shape", range(4))
def test_no_object_leaves_its_enclosing_sphere(shape):
    """Rays that pass outside the sphere are never tested against the object."""
    rng = np.random.default_rng(shape)
    origin = scene.unit(rng.standard_normal((20_000, 3)).astype(np.float32))
    origin[:, 1] = np.abs(origin[:, 1])
    target = rng.uniform([-0.2, 0, -0.2], [0.2, 0.4, 0.2], (20_000, 3)).astype(np.float32)
    rays = scene.unit(target - origin)
    distance, normal = scene.meet_object(origin, rays, shape, 1.0)
    met = np.isfinite(distance)
    assert met.sum() > 1000
    point = origin[met] + distance[met, None] * rays[met]
    centre = np.array([0, scene.ENCLOSING_HEIGHT, 0])
    assert np.linalg.norm(point - centre, axis=1).max() <= scene.ENCLOSING_RADIUS
    np.testing.assert_allclose(np.linalg.norm(normal[met], axis=1), 1, atol=1e-4)
    assert (scene.dot(normal[met], rays[met]) <= 1e-5).all()


@pytest.fixture(scope="module")
def report():
    return shapes3d_fidelity.fidelity(REFERENCE)


def test_renderings_look_like_the_real_frames(report):
    assert len(report.frames) == 30
    assert report.mean_ssim >= 0.98
    assert report.mean_absolute_error <= 1.5
    assert min(frame.ssim for frame in report.frames) >= 0.94
    assert max(frame.mean_absolute_error for frame in report.frames) <= 3


def test_a_wrong_orientation_is_seen_as_a_difference(report):
    """The measure can fail: one step of orientation more than doubles the error that is left."""
    turned = np.array([frame.factors for frame in report.frames])
    turned[:, 5] += np.where(turned[:, 5] < 14, 1, -1)
    real = np.array([frame.real for frame in report.frames], float)
    assert np.abs(shapes3d.frames(turned) - real).mean() > 2 * report.mean_absolute_error


def test_the_comparison_shows_real_rendered_and_difference(report, tmp_path):
    from PIL import Image

    shapes3d_fidelity.save_comparison(report, tmp_path / "frames.png")
    picture = np.asarray(Image.open(tmp_path / "frames.png"))[::2, ::2]
    assert picture.shape == (3 * 3 * 64, 10 * 64, 3)
    np.testing.assert_array_equal(picture[:64, 64:128], report.frames[1].real)
    np.testing.assert_array_equal(picture[64:128, 64:128], report.frames[1].rendered)
    assert "mean" in str(report)
    assert "30 frames" in str(report)


def test_fidelity_refuses_a_table_that_it_cannot_use(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"frames\.csv is not there"):
        shapes3d_fidelity.fidelity(tmp_path)
    (tmp_path / "frames.csv").write_text("file,floor_hue\na.png,1\n")
    with pytest.raises(ValueError, match="columns file, floor_hue"):
        shapes3d_fidelity.fidelity(tmp_path)
    header = (REFERENCE / "frames.csv").read_text().splitlines()[0]
    (tmp_path / "frames.csv").write_text(f"{header}\na.png,1,,0,0,0,0\n")
    with pytest.raises(ValueError, match=r"a\.png are not whole numbers"):
        shapes3d_fidelity.fidelity(tmp_path)


def test_chunks_are_what_gzip_in_hdf5_means():
    images = np.arange(shapes3d.CHUNK * 2 * 12288, dtype=np.uint32).astype(np.uint8).reshape(-1, 64, 64, 3)
    first, second = shapes3d._compressed(images)
    assert zlib.decompress(first) + zlib.decompress(second) == images.tobytes()
