"""The presets: every experiment as a function that returns its preset. PRESETS lists them by name."""

from __future__ import annotations

from collections.abc import Callable

from train.config.experiment import BetaTCVAE, BetaVAE, CapacityVAE, Network, Objective, Preset

EPOCH = 500  # training batches, in every experiment but MNIST's, whose epochs are the whole training split
MNIST_EPOCH = 630  # 63,000 images in training batches of 100


def mnist_vae() -> Preset:
    """Return the plain VAE on MNIST."""
    return Preset(
        name="mnist_vae",
        dataset="mnist",
        network=Network(channels=(), hidden=(400,), latent_dim=20, leak=0.0),
        objective=BetaVAE(1.0),
        steps=30 * MNIST_EPOCH,
        training_batch=100,
        learning_rate=1e-3,
        final_learning_rate=1e-3,
        description="MNIST, plain VAE of two perceptrons",
    )


def dsprites_beta_vae_1() -> Preset:
    """Return the beta-VAE on dSprites with beta 1."""
    return _dsprites_beta_vae("dsprites_beta_vae_1", 1.0)


def dsprites_beta_vae_4() -> Preset:
    """Return the beta-VAE on dSprites with beta 4."""
    return _dsprites_beta_vae("dsprites_beta_vae_4", 4.0)


def dsprites_beta_vae_2_5() -> Preset:
    """Return the beta-VAE on dSprites with beta 2.5."""
    return _dsprites_beta_vae("dsprites_beta_vae_2_5", 2.5)


def dsprites_gamma_vae_mlp() -> Preset:
    """Return the capacity VAE of perceptrons on dSprites with constant gamma."""
    return _dsprites(
        name="dsprites_gamma_vae_mlp",
        network=DSPRITES_MLP,
        objective=CapacityVAE(gamma=100.0, capacity=25.0, capacity_steps=60 * EPOCH),
        epochs=80,
        learning_rate=1e-3,
        description="dSprites, capacity VAE of two perceptrons, gamma 100",
    )


def dsprites_gamma_vae_mlp_decay() -> Preset:
    """Return the capacity VAE of perceptrons on dSprites with falling gamma."""
    return _dsprites(
        name="dsprites_gamma_vae_mlp_decay",
        network=DSPRITES_MLP,
        objective=CapacityVAE(100.0, 25.0, 60 * EPOCH, final_gamma=20.0, decay_steps=20 * EPOCH),
        epochs=80,
        learning_rate=5e-4,
        description="dSprites, capacity VAE of two perceptrons, gamma 100 falling to 20",
    )


def dsprites_gamma_vae_cnn() -> Preset:
    """Return the convolutional capacity VAE on dSprites with constant gamma."""
    return _dsprites(
        name="dsprites_gamma_vae_cnn",
        network=DSPRITES_CNN,
        objective=CapacityVAE(gamma=10.0, capacity=25.0, capacity_steps=60 * EPOCH),
        epochs=80,
        learning_rate=5e-4,
        description="dSprites, convolutional capacity VAE, gamma 10",
    )


def dsprites_gamma_vae_cnn_decay() -> Preset:
    """Return the convolutional capacity VAE on dSprites with falling gamma."""
    return _dsprites(
        name="dsprites_gamma_vae_cnn_decay",
        network=DSPRITES_CNN,
        objective=CapacityVAE(10.0, 25.0, 60 * EPOCH, final_gamma=2.0, decay_steps=40 * EPOCH),
        epochs=100,
        learning_rate=5e-4,
        description="dSprites, convolutional capacity VAE, gamma 10 falling to 2",
    )


def dsprites_beta_tcvae() -> Preset:
    """Return the beta-TCVAE on dSprites."""
    return _dsprites(
        name="dsprites_beta_tcvae",
        network=Network(channels=(32, 32, 32, 32), hidden=(256,), latent_dim=10, leak=0.0),
        objective=BetaTCVAE(beta=4.5, gamma_steps=5_000),
        epochs=120,
        training_batch=256,
        learning_rate=5e-4,
        description="dSprites, beta-TCVAE",
    )


def shapes3d_beta_tcvae() -> Preset:
    """Return the beta-TCVAE on 3D Shapes with all stages, which trains the shipped bundle."""
    return Preset(
        name="shapes3d_beta_tcvae",
        dataset="shapes3d",
        network=Network(),
        objective=BetaTCVAE(pressure=25, pressure_steps=8_000),
        steps=25_000,
        training_batch=128,
        learning_rate=1e-3,
        final_learning_rate=5e-5,
        decay_from=0.4,
        gradient_norm=1_000.0,
        narrow_steps=17_000,
        folded_steps=20_000,
        second_look=True,
        decoder_steps=6_000,
        structure=20_000.0,
        bilateral_radius=4,
        description="3D Shapes, beta-TCVAE with pressure annealed out: the shipped recipe",
    )


def shapes3d_beta_tcvae_plain() -> Preset:
    """Return the beta-TCVAE on 3D Shapes with the plain recipe of its paper."""
    return Preset(
        name="shapes3d_beta_tcvae_plain",
        dataset="shapes3d",
        network=Network(),
        objective=BetaTCVAE(gamma_steps=5_000),
        steps=25_000,
        training_batch=128,
        learning_rate=5e-4,
        final_learning_rate=5e-4,
        description="3D Shapes, beta-TCVAE as first published for this project: only gamma is annealed in",
    )


def folder() -> Preset:
    """Return the beta-TCVAE for a folder of the user's own images."""
    return Preset(
        name="folder",
        dataset="folder",
        network=Network(channels=(32, 64, 128, 256), hidden=(256,), latent_dim=12),
        # Photographs have no independent factors to separate, and a higher beta costs them detail.
        objective=BetaTCVAE(beta=2.0, gamma_steps=1_000),
        steps=10_000,
        training_batch=64,
        learning_rate=5e-4,
        final_learning_rate=5e-5,
        decay_from=0.5,
        gradient_norm=1_000.0,
        image_shape=(64, 64, 3),
        description="your own images: --data FOLDER, --size and --channels",
    )


DSPRITES_MLP = Network(channels=(), hidden=(1024, 256, 64), latent_dim=10, leak=0.0)
DSPRITES_CNN = Network(channels=(32, 32, 32, 32), hidden=(256, 64), latent_dim=10, leak=0.0)


def _dsprites_beta_vae(name: str, beta: float) -> Preset:
    return _dsprites(
        name=name,
        network=DSPRITES_MLP,
        objective=BetaVAE(beta),
        epochs=128,
        learning_rate=1e-3,
        description=f"dSprites, beta-VAE of two perceptrons, beta {beta:g}",
    )


def _dsprites(
    name: str,
    network: Network,
    objective: Objective,
    epochs: int,
    learning_rate: float,
    description: str,
    training_batch: int = 128,
) -> Preset:
    return Preset(
        name=name,
        dataset="dsprites",
        network=network,
        objective=objective,
        steps=epochs * EPOCH,
        training_batch=training_batch,
        learning_rate=learning_rate,
        final_learning_rate=learning_rate,
        description=description,
    )


PRESETS: dict[str, Callable[[], Preset]] = {
    make.__name__: make
    for make in (
        mnist_vae,
        dsprites_beta_vae_1,
        dsprites_beta_vae_4,
        dsprites_beta_vae_2_5,
        dsprites_gamma_vae_mlp,
        dsprites_gamma_vae_mlp_decay,
        dsprites_gamma_vae_cnn,
        dsprites_gamma_vae_cnn_decay,
        dsprites_beta_tcvae,
        shapes3d_beta_tcvae,
        shapes3d_beta_tcvae_plain,
        folder,
    )
}
