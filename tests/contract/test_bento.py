"""What `make bento` puts into a Bento: the service and one bundle, no more and no less."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pathspec import PathSpec

from service.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
BENTOFILE = yaml.safe_load((ROOT / "bentofile.yaml").read_text())


@pytest.fixture(scope="module")
def included() -> set[str]:
    files = (path for top in ("service", "train", "export", "tests", "k8s") for path in (ROOT / top).rglob("*"))
    names = [str(path.relative_to(ROOT)) for path in files if path.is_file()]
    return set(PathSpec.from_lines("gitignore", BENTOFILE["include"]).match_files(names))


def test_the_service_is_there_and_nothing_else(included):
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "service").rglob("*.py")}
    shipped = ROOT / "service" / "bundles" / Settings.model_fields["bundle"].default
    bundle = {str(path.relative_to(ROOT)) for path in shipped.iterdir()}
    assert {f"{shipped.relative_to(ROOT)}/{name}" for name in ("manifest.json", "encoder.onnx")} <= bundle
    pages = {
        str(path.relative_to(ROOT))
        for folder in ("report/web", "transports/http/page")
        for path in (ROOT / "service" / folder).iterdir()
    }
    assert included == modules | bundle | pages


def test_its_variables_are_known_and_it_serves_the_bundle_that_it_has():
    variables = {variable["name"]: variable["value"] for variable in BENTOFILE["envs"]}
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {"BENTOML_DO_NOT_TRACK"}
    assert set(variables) <= known
    assert f"service/bundles/{variables['MISFIT_BUNDLE']}/*" in BENTOFILE["include"]


def test_its_modules_are_compiled_in_the_image():
    """Pods cannot write: they would compile them at every start."""
    script = (ROOT / BENTOFILE["docker"]["setup_script"]).read_text()
    assert "compileall -q --invalidation-mode unchecked-hash" in script


def test_its_packages_are_locked_when_it_is_built():
    assert BENTOFILE["python"] == {"requirements_txt": "build/requirements.txt", "lock_packages": False}
    made = (ROOT / "Makefile").read_text()
    assert "--generate-hashes" in made
    assert f"--output-file={BENTOFILE['python']['requirements_txt']}".replace("=", " ") in made
