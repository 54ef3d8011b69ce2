"""Contexts as nobody fits them: what an attacker, or a broken client, makes of the JSON that /fit answered."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# Beside what is usual: zeros, denormals, the rims of what float64, int32 and exact whole numbers hold, and beyond.
NUMBERS: tuple[Any, ...] = (
    *(0, -0.0, 5e-324, 1e-308, 1e-154, 1e-30, 1e-15, 1e-6, 0.5, 1 - 1e-16, 1, -1, 2, 3, 250.0, 1e3, 1e6, 1e9, 1e15),
    *(
        1e30,
        1e77,
        1e154,
        1e300,
        1e308,
        -1e308,
        -1e154,
        -1e6,
        float("inf"),
        float("nan"),
        2**31,
        2**53,
        2**53 + 2,
        10**400,
    ),
)
OTHERS: tuple[Any, ...] = (None, True, "", "1", "nan", "\0", "é" * 1000, [], {}, [[]], [None], {"a": 1})
SCALES = (0.0, -1.0, 1e-300, 1e-150, 1e-20, 1e-9, 1e-3, 1e3, 1e9, 1e20, 1e150, 1e300)

Fault = Callable[[dict[str, Any], random.Random], None]


def spoil(context: dict[str, Any], others: Sequence[dict[str, Any]], chance: random.Random) -> dict[str, Any]:
    """`context`, as JSON has it, with one to three faults; fields may come from `others`."""
    spoiled: dict[str, Any] = copy.deepcopy(context)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        if chance.random() < 0.1:
            _graft(spoiled, chance.choice(others), chance)
        else:
            chance.choice(FAULTS)(spoiled, chance)
    return spoiled


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every container in the tree with each of its keys or indices."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    return [place for key in keys for place in [(tree, key), *_places(tree[key])]]


def _place(context: dict[str, Any], chance: random.Random, wanted: type | tuple[type, ...] = object) -> tuple[Any, Any]:
    """A place that holds such a value. Every field is as likely as any other: matrices hold most of the numbers."""
    fields = [*context, *(f"moments.{name}" for name in _fields(context, "moments")), *_kernel_fields(context)]
    chance.shuffle(fields)
    for field in fields:
        outer, _, inner = field.rpartition(".")
        container = context[outer] if outer else context
        places = [(container, inner), *_places(container[inner])]
        if places := [(at, key) for at, key in places if isinstance(at[key], wanted) and not isinstance(at[key], bool)]:
            return chance.choice(places)
    return context, "bundle_id"


def _fields(context: dict[str, Any], name: str) -> list[str]:
    inner = context.get(name)
    return list(inner) if isinstance(inner, dict) else []


def _kernel_fields(context: dict[str, Any]) -> list[str]:
    return [f"kernel.{name}" for name in _fields(context, "kernel")]


def _one_number(context: dict[str, Any], chance: random.Random) -> None:
    container, key = _place(context, chance, (int, float))
    container[key] = chance.choice(NUMBERS)


def _one_value(context: dict[str, Any], chance: random.Random) -> None:
    container, key = _place(context, chance)
    container[key] = copy.deepcopy(chance.choice((*NUMBERS, *OTHERS)))


def _all_alike(context: dict[str, Any], chance: random.Random) -> None:
    container, key = _place(context, chance, list)
    number = chance.choice(NUMBERS)
    container[key] = _mapped(container[key], lambda _: number)


def _scaled(context: dict[str, Any], chance: random.Random) -> None:
    container, key = _place(context, chance)
    scale = chance.choice(SCALES)
    container[key] = _mapped(container[key], lambda number: float(number) * scale)


def _mapped(tree: Any, change: Callable[[float], Any]) -> Any:
    if isinstance(tree, list):
        return [_mapped(member, change) for member in tree]
    is_number = isinstance(tree, int | float) and not isinstance(tree, bool) and abs(tree) < 1e308
    return change(tree) if is_number else tree


def _symmetric(context: dict[str, Any], chance: random.Random) -> None:
    """Two entries of a matrix that mirror each other, or one on its diagonal."""
    moments = context.get("moments")
    matrix = (
        context.get("covariance") if chance.random() < 0.5 or not isinstance(moments, dict) else moments.get("scatter")
    )
    if isinstance(matrix, list) and matrix and all(isinstance(row, list) and len(row) == len(matrix) for row in matrix):
        row, column = (chance.randrange(len(matrix)) for _ in range(2))
        matrix[row][column] = matrix[column][row] = chance.choice(NUMBERS)


def _crafted_matrix(context: dict[str, Any], chance: random.Random) -> None:
    """A covariance, or scatter, that is symmetric but of any scale and condition: down to a single direction."""
    location = context.get("location")
    size = len(location) if isinstance(location, list) else 1
    rng = np.random.default_rng(chance.randrange(2**32))
    turned = np.linalg.qr(rng.standard_normal((size, size)))[0]
    spread = 10.0 ** (rng.uniform(-chance.choice((1, 10, 20, 100)), 0, size) + chance.choice((-100, -20, 0, 20, 100)))
    units = 10.0 ** rng.uniform(-chance.choice((0, 10, 40)), 0, size)
    matrix = (turned * spread) @ turned.T * np.outer(units, units)
    matrix = ((matrix + matrix.T) / 2).tolist()
    if chance.random() < 0.7:
        context["covariance"] = matrix
    elif isinstance(context.get("moments"), dict):
        context["moments"]["scatter"] = matrix


def _larger(context: dict[str, Any], chance: random.Random) -> None:
    """Of ever more images."""
    context["size"] = chance.choice((2, 10**6, 2**31 - 1, 2**31, 2**53, 10**30, 10**400))
    if isinstance(context.get("moments"), dict) and chance.random() < 0.9:
        context["moments"]["size"] = context["size"]


def _lost(context: dict[str, Any], chance: random.Random) -> None:
    container, key = _place(context, chance)
    del container[key]


def _doubled(context: dict[str, Any], chance: random.Random) -> None:
    container, key = _place(context, chance)
    if isinstance(container, list):
        container.insert(key, copy.deepcopy(container[key]))
    else:
        container[f"{key}_2"] = copy.deepcopy(container[key])


def _reordered(context: dict[str, Any], chance: random.Random) -> None:
    container, key = _place(context, chance, list)
    if isinstance(container[key], list):
        chance.shuffle(container[key])


def _swapped(context: dict[str, Any], chance: random.Random) -> None:
    (one, here), (other, there) = (_place(context, chance, (list, int, float)) for _ in range(2))
    one[here], other[there] = copy.deepcopy(other[there]), copy.deepcopy(one[here])


def _graft(context: dict[str, Any], other: dict[str, Any], chance: random.Random) -> None:
    name = chance.choice(list(other))
    context[name] = copy.deepcopy(other[name])


FAULTS: tuple[Fault, ...] = (
    _one_number, _one_number, _one_number, _one_value, _all_alike, _all_alike, _scaled, _scaled,
    _symmetric, _symmetric, _crafted_matrix, _crafted_matrix, _larger, _lost, _doubled, _reordered, _swapped,
)  # fmt: skip


# A whole number that JSON's text holds and Python's does not, and the longest that both do.
TOO_LONG, LONGEST = "9" * 5000, "8" * 4000
OPTION_VALUES: tuple[Any, ...] = (
    *NUMBERS, *OTHERS, TOO_LONG, f"-{TOO_LONG}", LONGEST, int(LONGEST), "0" * 5000, [TOO_LONG], [LONGEST, 0], "1e400",
    *("inf", "-inf", "nan", "-0", " 1 ", "1_000", "0x10", "\u0663", "\u00b2", "0,1", "a,,b", "\ufffd", "x" * 100_000),
    *("all", "flagged", "set", "shift", "quantile", "gaussian", ["all"], ["0", "0.0"], [0, 0], [-1], [True], [[0]]),
    *(list(range(1001)), {"0": 1e400}, {"0": 5e-324}, {"0": 1000}, {"0": -0.9}, {"0": 1, "00": 2}, {TOO_LONG: 1}),
    *({"\0": 1}, {"0": {}}, '{"0": 1.5}', '{"0": 1e999}', '{"0": ' + TOO_LONG + "}", "[" * 300, 2**63, -(2**63)),
)  # fmt: skip
