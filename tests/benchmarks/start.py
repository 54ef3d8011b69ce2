"""CPU seconds from `bentoml serve` to ready, of all processes together, and the memory that they then take.

    python tests/benchmarks/start.py --out FILE

In turns: with the service's modules compiled, as in the image and after a first start, and compiled anew at each start,
as where nothing can be written beside them.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median

sys.path.append(str(Path(__file__).parents[1] / "support"))
sys.path.append(str(Path(__file__).parent / "peers"))
from measurements import save
from serving import ROOT, serve
from workloads import cpu_seconds, resident_mib


def start(scratch: Path, settings: dict[str, str]) -> tuple[float, float]:
    """Return the CPU seconds and the MiB of the service once it is ready."""
    with serve(scratch / "log", settings) as served:
        return cpu_seconds(served.process.pid), resident_mib(served.process.pid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write the results to this JSON file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        ways = {
            way: {"PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(scratch / way)} for way in ("compiled", "not")
        }
        start(scratch, ways["compiled"] | {"PYTHONDONTWRITEBYTECODE": ""})
        # Packages stay compiled.
        shutil.copytree(scratch / "compiled", scratch / "not")
        shutil.rmtree(scratch / "not" / (ROOT / "service").relative_to("/"))
        measured: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(arguments.rounds):
            for way, settings in ways.items():
                measured[way].append(start(scratch, settings | {"PYTHONDONTWRITEBYTECODE": "1"}))
    rows = {
        way: {"cpu_seconds": round(median(cpu for cpu, _ in each), 2), "mib": round(median(mib for _, mib in each))}
        for way, each in measured.items()
    }
    print(rows)
    save(arguments.out, {"rounds": arguments.rounds, **rows})


if __name__ == "__main__":
    main()
