"""The published OpenAPI document, tried out by schemathesis on the real service: no 5xx, and only what is documented.

`make faults` installs schemathesis in an environment of its own (.venv-schemathesis).
"""

from __future__ import annotations

import re
import subprocess

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from serving import ROOT, serve

SCHEMATHESIS = ROOT / ".venv-schemathesis" / "bin" / "st"
SEED = "1"
# Many of its requests come at the limits; with the usual ones each of them would take minutes.
LIMITS = {"MISFIT_MAX_IMAGES": "2000", "MISFIT_MAX_ROWS_IN_FLIGHT": "4000"}
PHASES = {
    # Each keyword of the schema, kept and violated. Not `positive_data_acceptance`: no schema can say that bytes are an
    # image, that a context belongs to this bundle, or that two options exclude each other.
    "coverage": ["--exclude-checks", "positive_data_acceptance"],
    # At random. Not `negative_data_rejection` either: it takes forms for violations which on the wire are none.
    "fuzzing": ["--exclude-checks", "positive_data_acceptance,negative_data_rejection", "--max-examples", "40"],
}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("schema") / "log", LIMITS) as served:
        yield served


def test_what_is_published_is_valid(served):
    OpenAPIV31SpecValidator(httpx.get(f"{served.url}/docs.json").json()).validate()


@pytest.mark.parametrize("phase", PHASES)
def test_schemathesis_finds_nothing(served, tmp_path, report, phase):
    command = [str(SCHEMATHESIS), "run", f"{served.url}/docs.json", "--phases", phase, "--checks", "all"]
    command += ["--seed", SEED, "--generation-database", "none", "--request-timeout", "60", "--warnings", "off"]
    run = subprocess.run(
        [*command, "--continue-on-failure", "--no-color", *PHASES[phase]], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-10_000:] + run.stderr
    (cases,) = re.findall(r"(\d+) generated, (\d+) passed", run.stdout)
    assert "13 selected / 13 total" in run.stdout
    assert cases[0] == cases[1]
    report(
        fault=f"schemathesis, {phase}",
        held="13 operations, no 5xx, nothing undocumented",
        answered=int(cases[0]),
        bad_inputs=int(cases[0]),
    )
