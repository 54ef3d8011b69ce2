"""3D Shapes."""

from __future__ import annotations

import colorsys
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np
from PIL import Image
from tqdm import tqdm

from train.data import shapes3d_scene as scene

FACTORS = ("floor hue", "wall hue", "object hue", "scale", "shape", "orientation")
SIZES = (10, 10, 10, 8, 4, 15)
HUES = np.array([colorsys.hsv_to_rgb(i / 10, 1, 1) for i in range(10)])
LEVELS = np.array([0, 0.2, 0.4, 0.6, 0.8, 1.0])
LEVEL_OF = np.rint(HUES * 5).astype(int)
SKY = np.array([153, 226, 249])
SS = 4
UNIT = 64  # fixed-point steps per grey level


@lru_cache
def lanczos() -> np.ndarray:
    eye = np.eye(64 * SS, dtype=np.float32)
    rows = [np.asarray(Image.fromarray(np.tile(e[:, None], (1, 1)), "F").resize((1, 64), Image.LANCZOS))[:, 0] for e in eye]
    return np.stack(rows, 1)


def layers(scale: int, shape: int, orientation: int) -> np.ndarray:
    """(3 surfaces, 6 levels, 64, 64) + sky (64,64)"""
    hits = scene.trace(scale, shape, orientation, SS)
    i, g = scene.light(hits, orientation, shape, scale)
    k = lanczos()
    out = np.empty((3, 6, 64, 64), np.float32)
    for s in (1, 2, 3):
        m = hits.surface == s
        for n, v in enumerate(LEVELS):
            img = np.where(m, np.clip(i * v + g, 0, 1) * 255, 0).reshape(64 * SS, 64 * SS).astype(np.float32)
            out[s - 1, n] = k @ img @ k.T
    sky = k @ (hits.surface == 0).reshape(64 * SS, 64 * SS).astype(np.float32) @ k.T
    return out, sky


def tint(geometries):
    """-> floor, wall, object: int16 (10, G, 64, 64, 3)"""
    lay = np.stack([g[0] for g in geometries])
    sky = np.stack([g[1] for g in geometries])
    out = np.empty((3, 10, len(lay), 64, 64, 3), np.int16)
    for s in range(3):
        for h in range(10):
            for c in range(3):
                plane = lay[:, s, LEVEL_OF[h, c]]
                if s == 0:
                    plane = plane + sky * SKY[c] + 0.5
                out[s, h, ..., c] = np.rint(plane * UNIT)
    return out


def compose(f, w, o):
    x = f + w
    x += o
    x >>= 6
    return np.clip(x, 0, 255, out=x).astype(np.uint8)


def render(path: Path, workers=None):
    pool = ThreadPoolExecutor(workers or os.cpu_count())
    combos = [(a, b, c) for a in range(8) for b in range(4) for c in range(15)]
    geo = list(tqdm(pool.map(lambda g: layers(*g), combos), total=480, desc="geometry"))
    T = tint(geo)
    ROWS = 60
    labels = np.stack(np.meshgrid(*[np.arange(n) for n in SIZES], indexing="ij"), -1).reshape(-1, 6)
    values = [np.arange(10) / 10] * 3 + [scene.SCALES, np.arange(4.0), scene.ORIENTATIONS]
    values = np.stack([v[labels[:, i]] for i, v in enumerate(values)], 1)
    tmp = path.with_suffix(".part")

    def work(n):
        f, w, o = n // 100, n // 10 % 10, n % 10
        im = compose(T[0, f], T[1, w], T[2, o])
        return n, [zlib.compress(im[i:i + ROWS].tobytes(), 1) for i in range(0, 480, ROWS)]

    with h5py.File(tmp, "w") as h:
        h.create_dataset("labels", data=values)
        d = h.create_dataset("images", (480000, 64, 64, 3), np.uint8, chunks=(ROWS, 64, 64, 3), compression="gzip", compression_opts=1)
        for n, blobs in tqdm(pool.map(work, range(1000)), total=1000):
            for i, b in enumerate(blobs):
                d.id.write_direct_chunk((n * 480 + i * ROWS, 0, 0, 0), b)
    os.replace(tmp, path)


def frames(factors):
    factors = np.asarray(factors)
    out = np.empty((len(factors), 64, 64, 3), np.uint8)
    uniq, inv = np.unique(factors[:, 3:], axis=0, return_inverse=True)
    for u, g in enumerate(uniq):
        T = tint([layers(*g)])
        for r in np.nonzero(inv.ravel() == u)[0]:
            f, w, o = factors[r, :3]
            out[r] = compose(T[0, f, 0], T[1, w, 0], T[2, o, 0])
    return out
