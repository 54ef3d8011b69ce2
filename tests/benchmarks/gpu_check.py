"""Whether a GPU computes what the CPU computes, and how fast: the networks, and a training step (`make gpu-check`).

    python tests/benchmarks/gpu_check.py [--device cpu]

It takes whatever packages are there: the networks need onnxruntime with a CUDA provider and numpy, the training step
needs torch. What cannot be run is said, with the reason, and ends the program with exit status 1, as a difference does.
It takes under six minutes. With `--device cpu` it is rehearsed: the CPU beside itself.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
GRAPHS = ("service/bundles/*/encoder.onnx", "service/bundles/*/decoder.onnx", "service/backbones/*/*.onnx")
ROWS = (1, 8, 32, 64, 128, 256, 512)
COMPARED_ROWS = 64
# Rates are medians over so many runs, in turns. A batch is as good as any from this share of the best rate on.
TURNS, MOST_SECONDS, GOOD = 15, 2.0, 0.95
# Of one input.
MOST_VALUES = 40_000_000
# Sums of float32 in another order differ by a few units of the last place of the largest term. Pixels may differ by one
# where they are rounded.
LATENT_TOLERANCE, PIXEL_TOLERANCE, LOSS_TOLERANCE, GRADIENT_TOLERANCE = 2e-3, 1, 1e-4, 5e-3
TRAINING_IMAGES, STEP = 100_000, 10_000
PRESETS = ("shapes3d_beta_tcvae_plain", "mnist_vae")


@dataclass
class Report:
    """The measurements, the differences, and the parts that could not be run."""

    device: str
    machine: dict[str, Any] = field(default_factory=dict)
    networks: list[dict[str, Any]] = field(default_factory=list)
    training: list[dict[str, Any]] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)

    def expect(self, difference: float, tolerance: float, what: str) -> None:
        """Record a difference above the tolerance, or one that is no number."""
        if not difference <= tolerance:
            self.differences.append(f"{what}: {difference:.3g}, at most {tolerance:g} was expected")


def describe_machine() -> dict[str, Any]:
    """Return the processor, the GPU and its driver as the system names them, and versions."""
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        gpu = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        gpu = None
    return {"processor": platform.processor() or platform.machine(), "gpu": gpu, "python": platform.python_version()}


def time_calls(call: Callable[[], object]) -> float:
    """Return calls a second: the median over TURNS calls, or those of some seconds, after one that is not timed."""
    call()
    seconds: list[float] = []
    while len(seconds) < TURNS and sum(seconds) < MOST_SECONDS:
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return 1 / median(seconds)


def check_networks(report: Report) -> None:
    """Compare every shipped graph on the device and on the CPU, and time it at every number of rows."""
    try:
        import onnxruntime as ort
    except ImportError:
        report.not_run.append("the networks: onnxruntime is not installed")
        return
    report.machine["onnxruntime"] = ort.__version__
    ort.set_default_logger_severity(4)  # what fails is in the report
    provider = "CPUExecutionProvider" if report.device == "cpu" else "CUDAExecutionProvider"
    if provider not in ort.get_available_providers():
        report.not_run.append(f"the networks: this onnxruntime has no {provider} ({ort.get_available_providers()})")
        return
    if hasattr(ort, "preload_dlls") and report.device != "cpu":
        ort.preload_dlls()  # the CUDA libraries that are installed as wheels, those of torch included
    for path in sorted(path for pattern in GRAPHS for path in ROOT.glob(pattern)):
        on_cpu = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        on_device = ort.InferenceSession(str(path), providers=[provider])
        name = str(path.relative_to(ROOT / "service"))
        if on_device.get_providers()[0] == provider:
            check_graph(report, name, on_cpu, on_device)
        else:
            report.not_run.append(f"{name}: the session fell back to {on_device.get_providers()[0]}")


def check_graph(report: Report, name: str, on_cpu: Any, on_device: Any) -> None:
    """Compare one graph's sessions, and time them."""
    (taken,) = on_cpu.get_inputs()
    counts = [count for count in ROWS if np.prod(taken.shape[1:]) * count <= MOST_VALUES]
    rows = make_rows(taken.shape[1:], taken.type, max(counts))
    few = {taken.name: rows[:COMPARED_ROWS]}
    expected, computed = on_cpu.run(None, few)[0], on_device.run(None, few)[0]
    is_pixels = expected.dtype == np.uint8
    scale = 1.0 if is_pixels else float(np.abs(expected).max())
    difference = float(np.abs(computed.astype(np.float64) - expected.astype(np.float64)).max()) / scale
    report.expect(difference, PIXEL_TOLERANCE if is_pixels else LATENT_TOLERANCE, f"{name}, largest difference")
    rates = {}
    for count in counts:
        given = {taken.name: rows[:count]}
        rates[count] = count * time_calls(partial(on_device.run, None, given))
    report.networks.append(
        {
            "graph": name,
            "largest_difference": difference,
            "rows_per_second": {count: round(value, 1) for count, value in rates.items()},
            "cpu_rows_per_second": round(len(expected) * time_calls(partial(on_cpu.run, None, few)), 1),
            "batch_that_is_enough": min(count for count in counts if rates[count] >= GOOD * max(rates.values())),
        }
    )


def make_rows(shape: list[int], type_: str, count: int) -> np.ndarray:
    """Return rows for a graph: images with smooth colours, or latents."""
    random = np.random.default_rng(0)
    if type_ != "tensor(uint8)":
        return random.standard_normal((count, *shape)).astype(np.float32)
    height, width, channels = shape
    slopes, offset = random.uniform(-1, 1, (2, count, 1, 1, channels)), random.uniform(0, 255, (count, 1, 1, channels))
    across, down = np.linspace(-80, 80, width)[:, None], np.linspace(-80, 80, height)[:, None, None]
    return np.clip(offset + slopes[0] * across + slopes[1] * down, 0, 255).astype(np.uint8)


def check_training(report: Report) -> None:
    """Compare one training step on the device and on the CPU, loss and gradients, and time steps on both."""
    try:
        import torch

        from train.config.presets import PRESETS as KNOWN
        from train.models.vae import VAE
        from train.objectives.schedule import ForwardPass, compute_loss
    except ImportError as error:
        report.not_run.append(f"the training step: {error}")
        return
    report.machine["torch"] = torch.__version__
    if report.device != "cpu" and not torch.cuda.is_available():
        report.not_run.append(f"the training step: torch {torch.__version__} finds no GPU")
        return
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for name in PRESETS:
        preset = KNOWN[name]()
        shape = (28, 28, 1) if preset.dataset == "mnist" else (64, 64, 3)
        pixels = torch.from_numpy(make_rows(list(shape), "tensor(uint8)", preset.training_batch))
        images = pixels.permute(0, 3, 1, 2).float().div(255).contiguous()
        torch.manual_seed(0)
        model = VAE(shape, preset.network)
        noise = torch.randn(preset.training_batch, preset.network.latent_dim)

        def step(model: VAE, images: torch.Tensor, noise: torch.Tensor, preset: Any) -> float:
            mean, logvar = model.encode(images)
            latents = mean + torch.exp(0.5 * logvar) * noise
            through = ForwardPass(images, model.decode(latents), latents, mean, logvar)
            loss, _, _ = compute_loss(preset.objective, through, TRAINING_IMAGES, STEP)
            model.zero_grad()
            loss.backward()
            return float(loss.detach())

        on_cpu = partial(step, model, images, noise, preset)
        other = copy.deepcopy(model).to(report.device)
        on_device = partial(step, other, images.to(report.device), noise.to(report.device), preset)
        losses = on_cpu(), on_device()
        apart = abs(losses[1] - losses[0]) / abs(losses[0])
        report.expect(apart, LOSS_TOLERANCE, f"{name}, loss")
        gradients = max(
            float((theirs.grad.cpu() - ours.grad).norm() / ours.grad.norm().clamp_min(1e-12))
            for ours, theirs in zip(model.parameters(), other.parameters(), strict=True)
        )
        report.expect(gradients, GRADIENT_TOLERANCE, f"{name}, gradients")
        report.training.append(
            {
                "preset": name,
                "training_batch": preset.training_batch,
                "loss_apart": apart,
                "gradients_apart": gradients,
                "steps_per_second": round(time_calls(on_device), 2),
                "cpu_steps_per_second": round(time_calls(on_cpu), 2),
            }
        )


def print_report(report: Report) -> None:
    print(f"device {report.device}, {report.machine}\n")
    for entry in report.networks:
        rates = ", ".join(f"{count}: {value}" for count, value in entry["rows_per_second"].items())
        print(f"{entry['graph']}: differs by {entry['largest_difference']:.2g}; rows a second by batch {rates}; ")
        print(
            f"    CPU {entry['cpu_rows_per_second']}; from a batch of {entry['batch_that_is_enough']} on it is as fast"
        )
    for entry in report.training:
        print(
            f"{entry['preset']}: loss apart {entry['loss_apart']:.2g}, gradients {entry['gradients_apart']:.2g}; "
            f"{entry['steps_per_second']} steps a second, CPU {entry['cpu_steps_per_second']}"
        )
    for text in report.not_run:
        print(f"NOT CHECKED: {text}")
    for text in report.differences:
        print(f"DIFFERENT: {text}")
    if not report.not_run and not report.differences:
        print(f"the {report.device} computes what the CPU computes")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--out", type=Path, help="write the report as JSON")
    options = parser.parse_args()
    report = Report(options.device, describe_machine())
    check_networks(report)
    check_training(report)
    print_report(report)
    if options.out is not None:
        options.out.write_text(json.dumps(vars(report), indent=2) + "\n")
    return 1 if report.differences or report.not_run else 0


if __name__ == "__main__":
    sys.exit(main())
