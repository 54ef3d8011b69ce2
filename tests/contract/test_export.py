"""Export: the graphs compute what PyTorch computes, and a bundle whose graphs do not is never written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import onnx
import onnxruntime as ort
import torch

from export import graphs, parity
from export.__main__ import export_run, main
from service.bundle import store
from service.core.population import Population
from service.inference import onnx_runtime
from train.config.experiment import BetaTCVAE, BetaVAE, Network, Preset
from train.data.dataset import Dataset
from train.evaluation import evaluate
from train.models import inference
from train.models.bilateral_filter import SeparableBilateral
from train.models.vae import VAE
from train.training import checkpoint, loop

LATENT_DIM = 4
NETWORK = Network(channels=(8, 16), hidden=(32,), latent_dim=LATENT_DIM)
IMAGE_SHAPE = (16, 16, 3)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """These networks are so small that threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network(image_shape: tuple[int, int, int] = IMAGE_SHAPE, seed: int = 0) -> VAE:
    """Random weights, three times larger than usual, so that latents spread and pixels reach both ends."""
    torch.manual_seed(seed)
    vae = VAE(image_shape, NETWORK).eval()
    with torch.no_grad():
        for weights in vae.parameters():
            weights *= 3
    return vae


@pytest.fixture(scope="module")
def population() -> Population:
    random = np.random.default_rng(0)
    mean, logvar = random.normal(size=(200, LATENT_DIM)) * 2, np.full((200, LATENT_DIM), -1.0)
    return Population.from_latents(np.stack((mean, logvar), axis=1))


@pytest.fixture(scope="module")
def vae() -> VAE:
    return network()


@pytest.fixture(scope="module")
def encoder(vae: VAE) -> bytes:
    return graphs.encoder(vae)


@pytest.fixture(scope="module")
def decoder(vae: VAE) -> bytes:
    return graphs.decoder(vae)


@pytest.fixture(scope="module")
def saliency(vae: VAE) -> bytes:
    return graphs.saliency(vae)


def session(graph: bytes) -> ort.InferenceSession:
    return ort.InferenceSession(graph, providers=["CPUExecutionProvider"])


# --- the graphs


def test_tensors_are_the_contracts(encoder: bytes, decoder: bytes) -> None:
    def tensors(values: list[ort.NodeArg]) -> list[tuple[str, str, list[int | str]]]:
        return [(value.name, value.type, value.shape) for value in values]

    assert tensors(session(encoder).get_inputs()) == [("images", "tensor(uint8)", ["N", 16, 16, 3])]
    assert tensors(session(encoder).get_outputs()) == [("latents", "tensor(float)", ["N", 2, LATENT_DIM])]
    assert tensors(session(decoder).get_inputs()) == [("latents", "tensor(float)", ["N", LATENT_DIM])]
    assert tensors(session(decoder).get_outputs()) == [("images", "tensor(uint8)", ["N", 16, 16, 3])]


def test_an_image_has_the_same_latents_in_any_company(encoder: bytes, decoder: bytes) -> None:
    images = np.random.default_rng(1).integers(0, 256, size=(9, *IMAGE_SHAPE), dtype=np.uint8)
    (together,) = session(encoder).run(None, {"images": images})
    alone = np.concatenate([session(encoder).run(None, {"images": images[i : i + 1]})[0] for i in range(9)])
    np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-5 * np.abs(together).max())
    (decoded,) = session(decoder).run(None, {"latents": together[:, 0]})
    assert (decoded.shape, decoded.dtype) == (images.shape, np.uint8)
    (nothing,) = session(encoder).run(None, {"images": images[:0]})
    assert nothing.shape == (0, 2, LATENT_DIM)


def test_white_is_one_and_channels_and_sides_keep_their_places(vae: VAE, encoder: bytes) -> None:
    image = np.zeros((1, *IMAGE_SHAPE), dtype=np.uint8)
    image[0, 3, 11] = (255, 51, 0)  # row 3, column 11
    scaled = torch.zeros(1, 3, 16, 16)
    scaled[0, :, 3, 11] = torch.tensor([1.0, 0.2, 0.0])
    with torch.inference_mode():
        expected = torch.stack(vae.encode(scaled), dim=1).numpy()
    (outputs,) = session(encoder).run(None, {"images": image})
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


def test_logits_become_grey_levels() -> None:
    class Logits(VAE):
        """Decodes a latent to an image that shows it as its logits."""

        def decode(self, latents: torch.Tensor) -> torch.Tensor:
            return latents.reshape(-1, 1, 2, 2)

    vae = Logits((2, 2, 1), Network(channels=(1,), hidden=(1,), latent_dim=4)).eval()
    logits = np.array([[-1e9, 0.0, 1e9, 2.0], [-np.inf, -2.0, np.inf, 1e-3]], dtype=np.float32)
    (images,) = session(graphs.decoder(vae)).run(None, {"latents": logits})
    # 255 sigmoid(logit), 127.5 going to the even neighbour
    assert images.reshape(2, 4).tolist() == [[0, 128, 255, 225], [0, 30, 255, 128]]


@pytest.mark.parametrize("name", ["encoder", "decoder", "saliency"])
def test_graphs_are_clean(name: str, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]) -> None:
    content: bytes = request.getfixturevalue(name)
    capfd.readouterr()
    session(content)
    assert capfd.readouterr().err == "", "ONNX Runtime warns about the graph"
    graph = onnx.load_from_string(content)
    onnx.checker.check_model(graph, full_check=True)
    assert [(opset.domain, opset.version) for opset in graph.opset_import] == [("", graphs.OPSET)]
    assert not {node.op_type for node in graph.graph.node} & {
        "Dropout",
        "BatchNormalization",
        "RandomNormalLike",
    }
    weights = {initializer.name for initializer in graph.graph.initializer if initializer.name.startswith("vae.")}
    assert {weight.split(".")[1] for weight in weights} == {name} - {"saliency"}, (
        "each graph carries its own weights only"
    )
    for trace in (b".py", str(Path.home()).encode(), str(Path.cwd()).encode()):
        assert trace not in content, "a shipped graph must not tell of the machine that made it"


def test_the_same_weights_give_the_same_bytes(encoder: bytes) -> None:
    assert graphs.encoder(network()) == encoder


# --- parity


def test_graphs_agree_with_pytorch(
    vae: VAE, encoder: bytes, decoder: bytes, saliency: bytes, population: Population
) -> None:
    reached = parity.check(vae, encoder, decoder, saliency, population)
    assert reached.batch_sizes == (1, 2, 7, 350)
    assert 0 < reached.latents_relative <= 1e-4
    assert reached.saliency_relative is not None
    assert 0 < reached.saliency_relative <= 1e-4
    assert reached.pixels_grey_levels <= 1


def test_grey_images_that_are_not_square_export_as_well(population: Population) -> None:
    vae = network((8, 16, 1))
    reached = parity.check(vae, graphs.encoder(vae), graphs.decoder(vae), graphs.saliency(vae), population)
    assert 0 < reached.latents_relative <= 1e-4


@pytest.mark.parametrize("shape", [(16, 16, 3), (8, 16, 1)])
def test_a_decoder_that_ends_in_a_filter_exports_as_well(population: Population, shape: tuple[int, int, int]) -> None:
    vae = network(shape)
    vae.decoder.append(SeparableBilateral(3))
    reached = parity.check(vae, graphs.encoder(vae), graphs.decoder(vae), graphs.saliency(vae), population)
    assert reached.pixels_grey_levels <= 1


@pytest.mark.parametrize("leak", [0.0, 0.2], ids=["relu", "leaky"])
def test_heat_maps_of_deeper_encoders_agree_with_autograd(population: Population, leak: float) -> None:
    torch.manual_seed(0)
    shape, deep = (16, 16, 1), Network(channels=(8, 16), hidden=(24, 12), latent_dim=LATENT_DIM, leak=leak)
    vae = VAE(shape, deep).eval()
    reached = parity.check(vae, graphs.encoder(vae), graphs.decoder(vae), graphs.saliency(vae), population)
    assert reached.saliency_relative is not None
    assert 0 < reached.saliency_relative <= 1e-4


def test_a_perceptron_has_no_heat_maps(population: Population) -> None:
    torch.manual_seed(0)
    vae = VAE((28, 28, 1), Network(channels=(), hidden=(40,), latent_dim=LATENT_DIM, leak=0.0)).eval()
    assert graphs.saliency(vae) is None
    reached = parity.check(vae, graphs.encoder(vae), graphs.decoder(vae), None, population)
    assert 0 < reached.latents_relative <= 1e-4
    assert reached.saliency_relative is None


def edited(content: bytes, op_type: str, change: Callable[[onnx.ModelProto, onnx.NodeProto], object]) -> bytes:
    graph = onnx.load_from_string(content)
    node = next(node for node in graph.graph.node if node.op_type == op_type)
    change(graph, node)
    result: bytes = graph.SerializeToString()
    return result


def set_constant(graph: onnx.ModelProto, name: str, value: float) -> None:
    (constant,) = (initializer for initializer in graph.graph.initializer if initializer.name == name)
    constant.CopyFrom(onnx.numpy_helper.from_array(np.array(value, dtype=np.float32), name))


def swap_sides(graph: onnx.ModelProto, node: onnx.NodeProto) -> None:
    node.attribute[0].ints[:] = (0, 3, 2, 1)  # these images are square: shapes tell nothing


WRONG_ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "not scaled": lambda graph: edited(graph, "Div", lambda g, node: set_constant(g, node.input[1], 1)),
    "scaled by 256": lambda graph: edited(graph, "Div", lambda g, node: set_constant(g, node.input[1], 256)),
    "rows for columns": lambda graph: edited(graph, "Transpose", swap_sides),
    "logvar before mean": lambda graph: edited(graph, "Concat", lambda g, node: node.input.reverse()),
    "other weights": lambda graph: graphs.encoder(network(seed=1)),
}


@pytest.mark.parametrize("name", WRONG_ENCODERS)
def test_a_wrong_encoder_is_refused(
    name: str, vae: VAE, encoder: bytes, decoder: bytes, saliency: bytes, population: Population
) -> None:
    with pytest.raises(parity.ParityError, match=r"latents of \d+ images differ by"):
        parity.check(vae, WRONG_ENCODERS[name](encoder), decoder, saliency, population)


WRONG_DECODERS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "darker by two levels": (
        lambda graph: edited(graph, "Mul", lambda g, node: set_constant(g, node.input[1], 253)),
        "differ by up to [2-9] grey levels",
    ),
    "no sigmoid": (
        lambda graph: edited(graph, "Sigmoid", lambda g, node: setattr(node, "op_type", "Identity")),
        "grey levels",
    ),
    "columns for rows": (lambda graph: edited(graph, "Transpose", swap_sides), "grey levels"),
    "other weights": (lambda graph: graphs.decoder(network(seed=1)), "grey levels"),
}


@pytest.mark.parametrize("name", WRONG_DECODERS)
def test_a_wrong_decoder_is_refused(
    name: str, vae: VAE, encoder: bytes, decoder: bytes, saliency: bytes, population: Population
) -> None:
    wrong, message = WRONG_DECODERS[name]
    with pytest.raises(parity.ParityError, match=message):
        parity.check(vae, encoder, wrong(decoder), saliency, population)


WRONG_SALIENCY: dict[str, Callable[[bytes], bytes]] = {
    "not scaled": lambda graph: edited(graph, "Div", lambda g, node: set_constant(g, node.input[1], 1)),
    "rows for columns": lambda graph: edited(graph, "Transpose", swap_sides),
    "slopes exchanged": lambda graph: edited(graph, "Greater", lambda g, node: setattr(node, "op_type", "Less")),
    "other weights": lambda graph: graphs.saliency(network(seed=1)),
}


@pytest.mark.parametrize("name", WRONG_SALIENCY)
def test_a_wrong_heat_map_is_refused(
    name: str, vae: VAE, encoder: bytes, decoder: bytes, saliency: bytes, population: Population
) -> None:
    with pytest.raises(parity.ParityError, match=r"heat maps of \d+ images differ by"):
        parity.check(vae, encoder, decoder, WRONG_SALIENCY[name](saliency), population)


def test_heat_maps_of_another_grid_are_refused(
    vae: VAE, encoder: bytes, decoder: bytes, population: Population
) -> None:
    deeper = VAE(IMAGE_SHAPE, Network(channels=(8, 16, 16), hidden=(32,), latent_dim=LATENT_DIM)).eval()
    with pytest.raises(parity.ParityError, match=r"saliency graph gave float32 \(1, 4, 2, 2\)"):
        parity.check(vae, encoder, decoder, graphs.saliency(deeper), population)


def test_a_network_that_gives_no_numbers_is_refused(
    encoder: bytes, decoder: bytes, saliency: bytes, population: Population
) -> None:
    vae = network()
    with torch.no_grad():
        vae.encoder[-1].bias[0] = torch.nan
    with pytest.raises(parity.ParityError, match="nan"):
        parity.check(vae, encoder, decoder, saliency, population)


# --- from a run to a bundle


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset, Preset]:
    """A really trained and evaluated run: squares of four hues and four heights before two walls."""
    random = np.random.default_rng(0)
    factors = np.stack([random.integers(0, size, size=600) for size in (4, 4, 2)], axis=1)
    images = np.empty((600, *IMAGE_SHAPE), dtype=np.uint8)
    images[:] = (factors[:, 2] * 120 + 20)[:, None, None, None]
    for image, (hue, height, _) in zip(images, factors, strict=True):
        image[3 * height : 3 * height + 6, 5:11] = np.eye(3, dtype=np.uint8)[hue % 3] * (250 if hue < 3 else 120)
    dataset = Dataset(images, factors, ("hue", "height", "wall"), (4, 4, 2), "squares", "drawn by a test")
    preset = Preset("tiny", "squares", NETWORK, BetaTCVAE(), 60, 64, 3e-3, 1e-3)
    run = tmp_path_factory.mktemp("runs") / "tiny"
    loop.run(preset, dataset, run, precision="fp32")
    evaluate.evaluate(run, dataset)
    return run, dataset, preset


def test_a_run_becomes_a_bundle_whose_figures_are_the_evaluations(
    trained: tuple[Path, Dataset, Preset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, dataset, _ = trained
    out = tmp_path / "bundles" / "tiny"
    assert main([str(run), "--out", str(out), "--licence", "CC0-1.0"]) == 0
    written = store.load(out)
    manifest, evaluation = written.manifest, json.loads((run / "evaluation.json").read_text())
    assert manifest.bundle_id[:12] in capsys.readouterr().out
    assert sorted(manifest.files) == ["decoder.onnx", "encoder.onnx", "population.npz", "saliency.onnx"]
    assert (manifest.model, manifest.licence) == ("tiny", "CC0-1.0")
    assert (manifest.image.shape, manifest.latent_dim) == (dataset.image_shape, LATENT_DIM)
    assert manifest.training == json.loads((run / "config.json").read_text())
    assert manifest.data == evaluation["data"]
    assert manifest.default_estimator == "ensemble"
    assert manifest.metrics.items() >= evaluation["metrics"].items()
    assert manifest.metrics["measured"] == {"command": evaluation["command"], "commit": evaluation["commit"]}
    for latent in manifest.latents:
        if latent.factor is not None:
            column = evaluation["factors"].index(latent.factor)
            assert latent.mutual_information == evaluation["mutual_information"][latent.index][column]

    # The same run gives the same bundle, and what ships computes what was evaluated.
    assert export_run(run, tmp_path / "again", licence="CC0-1.0").manifest.bundle_id == manifest.bundle_id
    (outputs,) = session((out / "encoder.onnx").read_bytes()).run(None, {"images": dataset.images[:50]})
    expected = inference.encode(checkpoint.load_model(run), dataset.images, np.arange(50))
    np.testing.assert_allclose(outputs, expected, atol=1e-4 * np.abs(expected).max())

    card = (out / store.CARD).read_text(encoding="utf-8")
    assert "no decoder" not in card
    assert card.startswith("# tiny\n")
    assert f"at commit `{evaluation['commit']}`" in card
    assert f"| ssim | {evaluation['metrics']['ssim']:.4g} |" in card
    for latent, row in zip(manifest.latents, evaluation["mutual_information"], strict=True):
        assert f"| {latent.name} | {' | '.join(f'{value:.2f}' for value in row)} |" in card
    for figure in evaluation["metrics"]:
        assert figure.endswith("per_factor") or f"| {figure} |" in card
    assert "{" not in card.replace(card[card.index("```json") : card.index("## Graphs")], "")


def test_a_perceptron_of_grey_images_becomes_a_bundle_without_heat_maps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The card tells the command that evaluated, which is else what started pytest, names of test files and all.
    monkeypatch.setattr("sys.argv", ["train/evaluation/evaluate.py"])
    random = np.random.default_rng(0)
    images = np.zeros((300, 28, 28, 1), dtype=np.uint8)
    for image, (row, column) in zip(images, random.integers(0, 20, size=(300, 2)), strict=True):
        image[row : row + 8, column : column + 8] = 255
    dataset = Dataset(images, np.zeros((300, 0), np.int64), (), (), "mnist", "own files")
    network = Network(channels=(), hidden=(32,), latent_dim=LATENT_DIM, leak=0.0)
    run, out = tmp_path / "run", tmp_path / "bundle"
    loop.run(Preset("digits", "mnist", network, BetaVAE(), 60, 32, 3e-3, 3e-3), dataset, run, precision="fp32")
    evaluate.evaluate(run, dataset)
    assert main([str(run), "--out", str(out)]) == 0
    assert "heat maps none" in capsys.readouterr().out
    written = store.load(out)
    assert written.manifest.image.shape == (28, 28, 1)
    assert not written.manifest.capabilities.has_saliency
    assert written.manifest.parity.saliency_relative is None
    card = (out / store.CARD).read_text(encoding="utf-8")
    assert "saliency" not in card
    assert "heat maps" not in card
    assert "28 x 28 grey images" in card

    networks = onnx_runtime.OnnxNetworks(written)
    assert not networks.capabilities.has_saliency
    decoded = networks.decode(networks.encode(images[:5])[:, 0])
    assert (decoded.shape, decoded.dtype) == ((5, 28, 28, 1), np.uint8)


def test_data_without_factors_gives_numbered_latents(trained: tuple[Path, Dataset, Preset], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained[0], run)
    evaluation = json.loads((run / "evaluation.json").read_text())
    evaluation |= {"factors": [], "factor_sizes": [], "factor_entropy": [], "mutual_information": []}
    evaluation["metrics"] = {"ssim": evaluation["metrics"]["ssim"]}
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    written = export_run(run, tmp_path / "out")
    assert all(latent.name.startswith(f"latent {latent.index}") for latent in written.manifest.latents)
    assert written.manifest.licence == "not stated"
    assert written.manifest.default_estimator == "ensemble"
    assert export_run(run, tmp_path / "other", estimator="robust").manifest.default_estimator == "robust"
    assert "latents are numbered" in (tmp_path / "out" / store.CARD).read_text(encoding="utf-8")


@pytest.mark.parametrize(("graph", "what"), [("encoder", "latents"), ("saliency", "heat maps")])
def test_a_run_that_fails_parity_leaves_no_bundle(
    graph: str,
    what: str,
    trained: tuple[Path, Dataset, Preset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wrong = getattr(graphs, graph)(network())
    monkeypatch.setattr(graphs, graph, lambda vae: wrong)
    assert main([str(trained[0]), "--out", str(tmp_path / "out")]) == 1
    assert f"error: {what} of 1 images differ by" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_not_evaluated_or_trained_on_since_is_refused(
    trained: tuple[Path, Dataset, Preset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    assert main([str(run), "--out", str(out)]) == 1
    assert "config.json" in capsys.readouterr().err
    shutil.copytree(trained[0], run)
    evaluation = json.loads((run / "evaluation.json").read_text())
    (run / "evaluation.json").write_text(json.dumps({**evaluation, "step": 40}))
    assert main([str(run), "--out", str(out)]) == 1
    assert "evaluated at step 40 and trained to step 60" in capsys.readouterr().err
    (run / "evaluation.json").unlink()
    assert main([str(run), "--out", str(out)]) == 1
    assert "python -m train evaluate" in capsys.readouterr().err
    assert not out.exists()


def test_a_model_of_no_use_is_exported_by_force_alone(
    trained: tuple[Path, Dataset, Preset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(trained[0], run)
    evaluation = json.loads((run / "evaluation.json").read_text())
    evaluation["metrics"] |= {"reconstruction_nll": 230.0, "perfect_nll": 40.0, "mean_image_nll": 240.0}
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    assert main([str(run), "--out", str(out)]) == 1
    refused = capsys.readouterr().err
    assert "of no use: " in refused
    assert "blank or nearly so" in refused
    assert "--force" in refused
    assert not out.exists()
    assert main([str(run), "--out", str(out), "--force"]) == 0
    printed = capsys.readouterr()
    assert "warning: reconstructions explain 5% of what" in printed.err
    assert "It knows the images of squares." in printed.out
    card = (out / store.CARD).read_text(encoding="utf-8")
    assert "- Reconstructions explain 5% of what the images' mean does not: they are blank or nearly so." in card
