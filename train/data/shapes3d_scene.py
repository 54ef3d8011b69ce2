"""A ray-caster for the room of 3D Shapes: geometry first, then light.

The scene: a square room of half width 1 with an object at the centre of its floor; a level camera that
orbits the object. World axes: x to the right, y up, z towards the camera of orientation 7. Every surface has one
hue; a sub-sample's colour is clip(intensity * hue + gloss), with intensity and gloss from `light` in this module.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

IMAGE_SIZE = 64
ORBIT_RADIUS, CAMERA_HEIGHT, FOCAL, PRINCIPAL = 0.74755, 0.22058, 69.81181, 31.51287  # the last two in pixels
WALL_HEIGHT = 0.57727
PROW = 31.46201
# per unit of scale, in half room widths
CUBE_HALF_SIDE = 0.10293
CYLINDER_RADIUS, CYLINDER_HEIGHT = 0.11053, 0.21953
SPHERE_RADIUS = 0.13322
CAPSULE_RADIUS, CAPSULE_STRAIGHT = 0.09599, 0.18918

SCALES = np.linspace(0.75, 1.25, 8)
ORIENTATIONS = np.linspace(-30.0, 30.0, 15)  # degrees
CUBE, CYLINDER, SPHERE, CAPSULE = range(4)
SKY, FLOOR, WALL, OBJECT = range(4)


@dataclass(frozen=True)
class Hits:
    """What each ray meets first: `surface` (P,), `point`, `normal`, `view` (P, 3), `view` from camera to point."""

    surface: NDArray[np.int8]
    point: Floats
    normal: Floats
    view: Floats


def camera(orientation: int, supersampling: int) -> tuple[Floats, Floats]:
    """Position (3,) and unit ray directions (P, 3), row by row from the top left sub-sample."""
    yaw = np.deg2rad(ORIENTATIONS[orientation])
    position = np.array([ORBIT_RADIUS * np.sin(yaw), CAMERA_HEIGHT, ORBIT_RADIUS * np.cos(yaw)])
    right = np.array([np.cos(yaw), 0.0, -np.sin(yaw)])
    ahead = np.array([-np.sin(yaw), 0.0, -np.cos(yaw)])
    at = (np.arange(IMAGE_SIZE * supersampling) + 0.5) / supersampling - 0.5
    rows, columns = np.meshgrid((at - PROW) / FOCAL, (at - PRINCIPAL) / FOCAL, indexing="ij")
    rays = ahead + columns[..., None] * right - rows[..., None] * np.array([0.0, 1.0, 0.0])
    rays = rays.reshape(-1, 3)
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    return position.astype(np.float32), rays.astype(np.float32)


def _sphere(origin: Floats, ray: Floats, centre_height: float, radius: float) -> tuple[Floats, Floats]:
    centre = np.array([0, centre_height, 0], np.float32)
    offset = origin - centre
    b = np.sum(offset * ray, axis=1)
    c = np.sum(offset * offset, axis=-1) - radius**2
    root = b * b - c
    t = np.where(root > 0, -b - np.sqrt(np.maximum(root, 0)), np.inf).astype(np.float32)
    normal = (offset + np.where(np.isfinite(t), t, 0)[:, None] * ray) / radius
    return t, normal.astype(np.float32)


def _tube(origin: Floats, ray: Floats, bottom: float, top: float, radius: float) -> tuple[Floats, Floats]:
    """The curved side of an upright cylinder."""
    o = np.broadcast_to(origin, ray.shape)
    a = ray[:, 0] ** 2 + ray[:, 2] ** 2 + 1e-12
    b = o[:, 0] * ray[:, 0] + o[:, 2] * ray[:, 2]
    c = o[:, 0] ** 2 + o[:, 2] ** 2 - radius**2
    root = b * b - a * c
    t = (-b - np.sqrt(np.maximum(root, 0))) / a
    y = o[:, 1] + t * ray[:, 1]
    t = np.where((root > 0) & (y >= bottom) & (y <= top), t, np.inf).astype(np.float32)
    finite = np.where(np.isfinite(t), t, 0)[:, None]
    normal = (o + finite * ray) / radius * np.array([1, 0, 1], np.float32)
    return t, normal.astype(np.float32)


def _lid(origin: Floats, ray: Floats, height: float, radius: float) -> tuple[Floats, Floats]:
    o = np.broadcast_to(origin, ray.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (height - o[:, 1]) / ray[:, 1]
        x, z = o[:, 0] + t * ray[:, 0], o[:, 2] + t * ray[:, 2]
        t = np.where(x * x + z * z <= radius**2, t, np.inf).astype(np.float32)
    normal = np.zeros_like(ray)
    normal[:, 1] = 1
    return t, normal


def _box(origin: Floats, ray: Floats, half: float) -> tuple[Floats, Floats]:
    low = np.array([-half, 0, -half], np.float32)
    high = np.array([half, 2 * half, half], np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = (low - origin) / ray, (high - origin) / ray
    near, far = np.minimum(first, second), np.maximum(first, second)
    t = near.max(axis=1)
    axis = near.argmax(axis=1)
    t = np.where(t <= far.min(axis=1), t, np.inf).astype(np.float32)
    normal = np.zeros_like(ray)
    rows = np.arange(len(ray))
    normal[rows, axis] = -np.sign(ray[rows, axis])
    return t, normal


def object_parts(origin: Floats, ray: Floats, shape: int, scale: float) -> list[tuple[Floats, Floats]]:
    if shape == CUBE:
        return [_box(origin, ray, CUBE_HALF_SIDE * scale)]
    if shape == CYLINDER:
        radius, height = CYLINDER_RADIUS * scale, CYLINDER_HEIGHT * scale
        return [_tube(origin, ray, 0, height, radius), _lid(origin, ray, height, radius)]
    if shape == SPHERE:
        return [_sphere(origin, ray, SPHERE_RADIUS * scale, SPHERE_RADIUS * scale)]
    radius, top = CAPSULE_RADIUS * scale, (CAPSULE_RADIUS + CAPSULE_STRAIGHT) * scale
    return [
        _tube(origin, ray, radius, top, radius),
        _sphere(origin, ray, radius, radius),
        _sphere(origin, ray, top, radius),
    ]


def meet_object(origin: Floats, ray: Floats, shape: int, scale: float) -> tuple[Floats, Floats]:
    """Distance (P,), inf where missed, and unit normal (P, 3) at the first hit."""
    parts = object_parts(origin, ray, shape, scale)
    distance, normal = parts[0]
    for t, n in parts[1:]:
        nearer = t < distance
        distance = np.where(nearer, t, distance)
        normal = np.where(nearer[:, None], n, normal)
    return np.where(distance > 0, distance, np.inf).astype(np.float32), normal


def trace(scale: int, shape: int, orientation: int, supersampling: int = 4) -> Hits:
    position, ray = camera(orientation, supersampling)
    count = len(ray)
    with np.errstate(divide="ignore", invalid="ignore"):
        planes = np.stack([
            (-1 - position[0]) / ray[:, 0],
            (1 - position[0]) / ray[:, 0],
            (-1 - position[2]) / ray[:, 2],
        ])
        floor = np.where(ray[:, 1] < 0, -position[1] / ray[:, 1], np.inf)
    planes = np.where(planes > 0, planes, np.inf)
    which = planes.argmin(axis=0)
    wall = planes.min(axis=0)
    surface = np.where(position[1] + wall * ray[:, 1] <= WALL_HEIGHT, WALL, SKY)
    surface = np.where(floor < wall, FLOOR, surface)
    distance = np.minimum(floor, wall)
    normals = np.array([[1, 0, 0], [-1, 0, 0], [0, 0, 1]], np.float32)
    normal = np.where((surface == FLOOR)[:, None], np.array([0, 1, 0], np.float32), normals[which])
    t, n = meet_object(position, ray, shape, float(SCALES[scale]))
    front = t < distance
    surface = np.where(front, OBJECT, surface).astype(np.int8)
    distance = np.where(front, t, distance)
    normal = np.where(front[:, None], n, normal)
    point = position + distance[:, None] * ray
    return Hits(surface, point.astype(np.float32), normal.astype(np.float32), ray)



# by surface: sky, floor, wall, object
LIGHT: dict = dict(
    ambient=[0, 0.3392, 0.3467, 0.3496], head=[0, 0.0, 0.5837, 0.5996], lamp=[0, 0.9644, 0.9162, 1.013], gloss=0.1502,
    position=[-0.42, 2.17, -0.155], aim=[0, -1, 0], exponent=10.0,
)
SHX, SHY, SHZ = -0.42, 2.17, -0.155
SLICE, STACK = 2 * np.pi / 28, np.pi / 16


def _unit(a):
    return a / np.linalg.norm(a, axis=-1, keepdims=True)


def lamp_light(point, normal):
    """diffuse and gloss factor of lamp"""
    to = _unit(np.array(LIGHT["position"], np.float32) - point)
    aim = _unit(np.array(LIGHT["aim"], np.float32))
    cosine = (normal * to).sum(1)
    spot = np.maximum(-(to @ aim), 0) ** LIGHT["exponent"]
    return np.maximum(cosine, 0) * spot, (cosine > 0) * spot


def head_light(normal, eye):
    return np.maximum(normal @ eye, 0)


def gouraud(point, normal, eye, shape, scale):
    """(lamp diffuse, lamp gloss, head) interpolated over the facets"""
    azimuth, elevation = np.arctan2(normal[:, 2], normal[:, 0]), np.arcsin(np.clip(normal[:, 1], -1, 1))
    radius = {CYLINDER: CYLINDER_RADIUS, SPHERE: SPHERE_RADIUS, CAPSULE: CAPSULE_RADIUS}[shape] * scale
    centre = point - radius * normal
    a, e = azimuth / SLICE, elevation / STACK
    if shape == CYLINDER:
        e = e * 0
    a0, e0 = np.floor(a), np.floor(e)
    total = 0
    for da in (0, 1):
        for de in (0, 1):
            weight = np.abs(1 - da - (a - a0)) * np.abs(1 - de - (e - e0))
            aa, ee = (a0 + da) * SLICE, (e0 + de) * STACK
            n = np.stack([np.cos(ee) * np.cos(aa), np.sin(ee), np.cos(ee) * np.sin(aa)], 1).astype(np.float32)
            d, g = lamp_light(centre + radius * n, n)
            total = total + weight * np.stack([d, g, head_light(n, eye)])
    return total


def shade(surface, point, normal, eye, shape, scale, lit):
    d, g = lamp_light(point, normal)
    factors = np.stack([d, g, head_light(normal, eye)])
    if shape != CUBE:
        m = (surface == OBJECT) & ~((shape == CYLINDER) & (normal[:, 1] > 0.5))
        factors[:, m] = gouraud(point[m], normal[m], eye, shape, scale)
    ambient, head, lamp = (np.array(LIGHT[k], np.float32)[surface] for k in ("ambient", "head", "lamp"))
    intensity = ambient + head * factors[2] + lamp * factors[0] * lit
    gloss = LIGHT["gloss"] * factors[1] * (surface == OBJECT)
    return intensity.astype(np.float32), gloss.astype(np.float32)


def light(hits: Hits, orientation: int, shape: int, scale: int) -> tuple[Floats, Floats]:
    yaw = np.deg2rad(ORIENTATIONS[orientation])
    eye = np.array([np.sin(yaw), 0, np.cos(yaw)], np.float32)
    to = _unit(np.array([SHX, SHY, SHZ], np.float32) - hits.point)
    t, _ = meet_object(hits.point + 1e-3 * hits.normal, to, shape, float(SCALES[scale]))
    lit = ~np.isfinite(t) | (hits.surface == OBJECT)
    return shade(hits.surface, hits.point, hits.normal, eye, shape, float(SCALES[scale]), lit)
