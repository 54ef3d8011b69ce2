"""Counts on a disk without room: they are kept in memory, and nothing else is noticed."""

import errno
import os
import subprocess
import sys

import pytest
from prometheus_client import mmap_dict, multiprocess, values

from service.hosting.metric_files import ReservedFile, forget_killed_processes, prepare

KEYS = [f'["misfit_{number}", "misfit_{number}", {{}}, "help {"x" * 300}"]' for number in range(1000)]  # 330 KiB


@pytest.fixture
def no_room(monkeypatch):
    """A function after whose call no file grows any more."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    return lambda: monkeypatch.setattr(os, "posix_fallocate", full)


def read(path) -> dict[str, float]:
    return {key: value for key, value, _, _ in ReservedFile.read_all_values_from_file(str(path))}


def test_with_room_it_is_what_prometheus_reads(tmp_path):
    path = tmp_path / "counter_1.db"
    file = ReservedFile(str(path))
    for number, key in enumerate(KEYS):
        assert file.read_value(key) == (0, 0)
        file.write_value(key, number, 7.0)
        assert file.read_value(key) == (number, 7)
    file.close()
    expected = {key: float(number) for number, key in enumerate(KEYS)}
    assert read(path) == expected
    theirs = {key: value for key, value, _, _ in mmap_dict.MmapedDict.read_all_values_from_file(str(path))}
    assert theirs == expected
    again = ReservedFile(str(path))
    assert again.read_value(KEYS[-1]) == (len(KEYS) - 1, 7)
    again.close()


def test_all_of_a_file_is_reserved(tmp_path):
    """A hole in it would end the process that writes there once the disk is full."""
    path = tmp_path / "counter_1.db"
    file = ReservedFile(str(path))
    for key in (None, *KEYS):
        if key is not None:
            file.write_value(key, 1, 0)
        assert path.stat().st_blocks * 512 >= path.stat().st_size
    file.close()


def test_what_finds_no_room_is_kept_in_memory(tmp_path, no_room):
    path = tmp_path / "counter_1.db"
    file = ReservedFile(str(path))
    file.write_value(KEYS[0], 1, 0)
    no_room()
    for number, key in enumerate(KEYS):
        file.read_value(key)
        file.write_value(key, number, 7)
        file.write_value(key, number + 1, 7)
        assert file.read_value(key) == (number + 1, 7)
    file.close()
    seen = read(path)
    assert 0 < len(seen) < len(KEYS)
    assert all(seen[key] == KEYS.index(key) + 1 for key in seen)


@pytest.mark.parametrize("directory", ["full", "gone"])
def test_without_a_file_all_is_kept_in_memory(tmp_path, no_room, directory):
    path = tmp_path / ("counter_1.db" if directory == "full" else "gone/counter_1.db")
    no_room()
    file = ReservedFile(str(path))
    assert file.read_value(KEYS[0]) == (0, 0)
    file.write_value(KEYS[0], 3, 7)
    assert file.read_value(KEYS[0]) == (3, 7)
    file.close()
    assert not path.exists()


def test_an_empty_file_has_no_counts(tmp_path):
    (tmp_path / "counter_1.db").touch()
    assert read(tmp_path / "counter_1.db") == {}


def test_prometheus_takes_these_files(monkeypatch):
    for module in (values, multiprocess):
        monkeypatch.setattr(module, "MmapedDict", mmap_dict.MmapedDict)
    prepare()
    assert values.MmapedDict is multiprocess.MmapedDict is ReservedFile


def test_gauges_of_killed_processes_are_removed(tmp_path, monkeypatch):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    running = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    kept = ["counter_%d.db", "histogram_%d.db"]
    names = [*kept, "gauge_livesum_%d.db", "gauge_livemostrecent_%d.db"]
    for process in (ended, running):
        for name in names:
            (tmp_path / (name % process.pid)).touch()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    forget_killed_processes()
    running.communicate(b"\n")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {name % running.pid for name in names} | {name % ended.pid for name in kept}
