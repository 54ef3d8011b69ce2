"""Several runs of one recipe as median and range."""

from __future__ import annotations

import json

import pytest

from service.core.types import DEFAULT_ESTIMATOR
from train.__main__ import main
from train.config.experiment import record_of
from train.config.overrides import shorten
from train.config.presets import PRESETS
from train.reports import seeds

PRESET = shorten(PRESETS["shapes3d_beta_tcvae"](), 50)
FACTORS = ("floor hue", "scale")


def cell(stratum, auroc):
    return {
        "stratum": stratum,
        "methods": {DEFAULT_ESTIMATOR: {"auroc": {"mean": auroc, "worst_decile": auroc}}, "oracle": {}},
    }


LOOKED = {0: {"aligned": True, "elsewhere": 0.123}, 1: {"aligned": False, "elsewhere": 0.001}, 2: {"aligned": False}}


def write_run(directory, seed, mig, preset=PRESET, step=None):
    """A finished run as the commands leave it; its AUROC is 0.9 and the MIG between them."""
    step = step or preset.last_step(LOOKED[seed]["aligned"])
    (directory / "figures").mkdir(parents=True)
    (directory / "figures" / "traversals.png").write_bytes(b"png of %d" % seed)
    (directory / "benchmark").mkdir()
    config = {"preset": record_of(preset), "seed": seed, "precision": "fp32", "commit": "c0ffee"}
    record = {"step": step, "loss": 1.0, "images_per_second": 128.0}
    metrics = {"mig": mig, "mig_sampled": mig, "ssim": 0.9, "live_latents": 6}
    metrics["mig_per_factor"] = dict.fromkeys(FACTORS, mig)
    evaluation = {"step": step, "metrics": metrics, "commit": "decaf"}
    benchmark = {"bundle_id": "b", "commit": "decaf", "split": "test", "images": 9, "seed": 1}
    benchmark["cells"] = [{"stratum": "clean", "methods": {}}, cell("any_difference", 0.9), cell("any_difference", mig)]
    for name, content in {
        "config.json": config,
        "evaluation.json": evaluation,
        "unfolding.json": {"kept": [0, 1, 2], "folded": None if seed else 2} | LOOKED[seed],
        "benchmark/benchmark.json": benchmark,
    }.items():
        (directory / name).write_text(json.dumps(content))
    (directory / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    return directory


def row(page, label):
    [line] = [line for line in page.splitlines() if line.startswith(f"| {label} |")][:1]
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_the_page_has_every_seed_and_median_and_range(tmp_path, capsys):
    runs = [write_run(tmp_path / str(seed), seed, mig) for seed, mig in enumerate((0.7, 0.9, 0.5))]
    out = tmp_path / "out"
    assert main(["seeds", *map(str, runs), "--out", str(out)]) == 0
    page = (out / "README.md").read_text()
    assert capsys.readouterr().out.strip() == str(out / "README.md")
    assert row(page, "0") == ["0.700", "0.700", "0.900", "6", "0.800"]
    assert [row(page, label)[0] for label in ("median", "lowest", "highest")] == ["0.700", "0.500", "0.900"]
    assert row(page, "median")[-1] == "0.800"
    assert "latent 2 was unfolded. At the second look 12.3% of the images" in page
    assert page.count("the two latents were taught anew") == 1
    assert page.count("the two latents stayed as they were") == 1
    assert page.count("no latent was folded") == 2
    records = json.loads((out / "seeds.json").read_text())
    assert [entry["config"]["seed"] for entry in records] == [0, 1, 2]
    assert [entry["seconds"] for entry in records] == [PRESET.most_steps, PRESET.total_steps, PRESET.total_steps]
    assert (out / "traversals_1.png").read_bytes() == b"png of 1"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda path: write_run(path, 0, 0.9), r"the seeds \[0, 0\]"),
        (lambda path: write_run(path, 1, 0.9, PRESETS["shapes3d_beta_tcvae_plain"]()), "2 recipes"),
        (lambda path: write_run(path, 1, 0.9, step=7), "only a finished"),
        (lambda path: write_run(path, 0, 0.9, step=PRESET.total_steps), f"of {PRESET.most_steps}, .*only a finished"),
    ],
    ids=["same seed", "another recipe", "unfinished", "in its second pass"],
)
def test_what_cannot_be_compared_is_refused(tmp_path, other, message):
    with pytest.raises(ValueError, match=message):
        seeds.keep([write_run(tmp_path / "one", 0, 0.7), other(tmp_path / "other")], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_without_a_benchmark_names_the_commands_that_make_it(tmp_path):
    run = write_run(tmp_path / "run", 0, 0.7)
    (run / "benchmark" / "benchmark.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"python -m export .*run --out .*/bundle.*python -m train benchmark"):
        seeds.keep([run], tmp_path / "out")
