"""Collect the source of the client's own distribution: `service.client` and what it imports, as `misfit_client`.

    python clients/python/collect.py build/client

The service's packages have a top-level name that other projects use as well, and its distribution needs all that a
server needs. Therefore the client has a distribution of its own. Its modules are those of this repository, with
another name in front; nothing is written twice.
"""

from __future__ import annotations

import argparse
import ast
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE, START = "misfit_client", "service.client"
# What the distribution needs, by the module that is imported. Versions are those of the whole project.
DISTRIBUTIONS = {"numpy": "numpy", "PIL": "pillow", "pydantic": "pydantic", "httpx": "httpx", "grpc": "grpcio"}
DISTRIBUTIONS |= {"google": "protobuf", "anyio": "anyio", "pydantic_core": "pydantic"}
# Extras, for what a method imports when it is called.
EXTRAS = {"pandas": "pandas"}


def collect(out: Path) -> set[str]:
    """Write the distribution's source to the directory `out`, and return the names of its modules in this repository.

    Raises ValueError where the client imports a package that the distribution does not name.
    """
    modules: dict[str, Path] = {}
    foreign: set[str] = set()
    waiting = [START]
    while waiting:
        name = waiting.pop()
        if name in modules or (path := _find(name)) is None:
            continue
        modules[name] = path
        parents = [name.rpartition(".")[0]] if name.count(".") > 1 else []
        for imported in (*parents, *_list_imports(ast.parse(path.read_text()))):
            top = imported.partition(".")[0]
            if top == "service":
                waiting.append(imported)
            elif top not in sys.stdlib_module_names:
                foreign.add(top)
    if unknown := foreign - DISTRIBUTIONS.keys() - EXTRAS.keys():
        raise ValueError(f"the client imports {sorted(unknown)}, which its distribution does not name")

    shutil.rmtree(out, ignore_errors=True)
    package = out / PACKAGE
    for path in modules.values():
        copy = package / path.relative_to(ROOT / "service")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(_rename(path.read_text()))
        if (stub := path.with_suffix(".pyi")).exists():
            copy.with_suffix(".pyi").write_text(_rename(stub.read_text()))
    for folder in {package, *(path for path in package.rglob("*") if path.is_dir())}:
        (folder / "__init__.py").touch()
    (package / "__init__.py").write_text(_rename((ROOT / "service" / "client" / "__init__.py").read_text()))
    (package / "py.typed").touch()
    (out / "pyproject.toml").write_text(_make_project(foreign))
    shutil.copy(ROOT / "LICENSE", out)
    shutil.copy(Path(__file__).with_name("README.md"), out)
    return set(modules)


def _find(name: str) -> Path | None:
    """Return the file of a module of this repository, or None where the name is that of something in a module."""
    path = ROOT.joinpath(*name.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.exists()), None)


def _list_imports(tree: ast.AST) -> Iterator[str]:
    """Yield the names that a module imports, wherever it does so: modules, and what is imported from them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _rename(source: str) -> str:
    return re.sub(r"\bservice\.(?=[a-z_]+\b)", f"{PACKAGE}.", source)


def _make_project(imported: set[str]) -> str:
    """Return pyproject.toml, with the versions that the whole project asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {re.split(r"[<>=!~\[; ]", text, maxsplit=1)[0]: text for text in project["dependencies"]}
    for extra in project["optional-dependencies"].values():
        asked = {re.split(r"[<>=!~\[; ]", text, maxsplit=1)[0]: text for text in extra} | asked
    needed = sorted({asked[DISTRIBUTIONS[top]] for top in imported & DISTRIBUTIONS.keys()})
    extras = sorted(asked[EXTRAS[top]] for top in imported & EXTRAS.keys())
    listed = "".join(f'    "{text}",\n' for text in needed)
    optional = f"\n[project.optional-dependencies]\npandas = {extras}\n" if extras else ""
    return f"""[build-system]
requires = ["setuptools>=80"]
build-backend = "setuptools.build_meta"

[project]
name = "misfit-client"
version = "{project["version"]}"
description = "The Python client of misfit: find the images that do not belong in their batch."
readme = "README.md"
requires-python = "{project["requires-python"]}"
license = "{project["license"]}"
license-files = ["LICENSE"]
dependencies = [
{listed}]
{optional}
[tool.setuptools.packages.find]
include = ["{PACKAGE}*"]

[tool.setuptools.package-data]
"*" = ["py.typed", "*.pyi"]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="an empty or new directory; what it holds is replaced")
    collect(parser.parse_args().out)


if __name__ == "__main__":
    main()
