"""projection.npz: what is written is read again, and damage is named."""

import numpy as np
import pytest

from service.bundle.projection_file import Projection, from_npz, to_npz
from service.errors import BundleCorrupt


def projection(channels=6, axes=3, properties=2):
    random = np.random.default_rng(0)
    return Projection(
        mean=random.standard_normal(channels),
        direction=random.standard_normal(channels),
        principal=np.linalg.qr(random.standard_normal((channels, 4)))[0],
        axes=random.standard_normal((channels, axes)),
        property_mean=np.ones(properties),
        property_spread=np.full(properties, 2.0),
        logvar=np.zeros(axes + properties),
        direction_reach=np.ones(1),
        property_reach=np.full(properties, 4.0),
    )


def test_a_projection_is_read_as_it_was_written():
    written = projection()
    read = from_npz(to_npz(written), latent_dim=5, properties=2)
    for name, values in vars(written).items():
        np.testing.assert_allclose(getattr(read, name), values, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axes": np.zeros((6, 2))}, "axes has shape"),
        ({"mean": np.full(6, np.nan)}, "mean has shape"),
        ({"property_spread": np.array([1.0, 0.0])}, "property_spread holds a value that is not positive"),
        ({"logvar": np.zeros(4)}, "logvar has shape"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    damaged = to_npz(Projection(**(vars(projection()) | change)))
    with pytest.raises(BundleCorrupt, match=message):
        from_npz(damaged, latent_dim=5, properties=2)


@pytest.mark.parametrize("content", [b"", b"nothing", to_npz(projection())[:200]])
def test_a_damaged_file_cannot_be_read(content):
    with pytest.raises(BundleCorrupt, match="cannot be read"):
        from_npz(content, latent_dim=5, properties=2)
