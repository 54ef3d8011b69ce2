"""The geometry of 3D Shapes: a camera, a square room, and one object at the centre of its floor.

World axes: x to the right, y up, z towards the camera of orientation 7. The room's half width is 1. The camera is level
and orbits the object; the room and the object do not move. The numbers were fitted on 30 real frames
(tests/data/shapes3d_reference). Silhouettes and outlines of the shadows agree within about 0.1 px. Arrays of rays hold
one row per sub-sample of the image, row by row from the top left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

IMAGE_SIZE = 64
SUPERSAMPLING = 4  # sub-samples per pixel along each axis

FOCAL, CENTRE_ROW, CENTRE_COLUMN = 69.81181, 31.46201, 31.51287  # pixels
ORBIT_RADIUS, CAMERA_HEIGHT = 0.74755, 0.22058
WALL_HEIGHT = 0.57727

# Per unit of scale.
CUBE_HALF_SIDE = 0.10293
CYLINDER_RADIUS, CYLINDER_HEIGHT = 0.11053, 0.21953
SPHERE_RADIUS = 0.13322
CAPSULE_RADIUS, CAPSULE_STRAIGHT = 0.09599, 0.18918
ENCLOSING_HEIGHT, ENCLOSING_RADIUS = 0.19, 0.25  # centre and radius of a sphere around all four shapes

CUBE, CYLINDER, SPHERE, CAPSULE = range(4)
SKY, FLOOR, WALL, OBJECT = range(4)
SCALES = np.linspace(0.75, 1.25, 8)
ORIENTATIONS = np.linspace(-30.0, 30.0, 15)  # degrees

WALL_NORMALS = np.array([[1, 0, 0], [-1, 0, 0], [0, 0, 1]], np.float32)  # left, right, back
UP = np.array([0, 1, 0], np.float32)


@dataclass(frozen=True)
class View:
    """The camera of one orientation: `position` (3,), unit `rays` (P, 3), `towards_camera` (3,) against its axis."""

    position: Floats
    rays: Floats
    towards_camera: Floats


@dataclass(frozen=True)
class Hits:
    """The points where rays meet the scene: `surface` (P,), `distance` (P,), `point` and unit `normal` (P, 3)."""

    surface: NDArray[np.int8]
    distance: Floats
    point: Floats
    normal: Floats


def unit(vectors: Floats) -> Floats:
    """Scale vectors (..., 3) to length 1."""
    lengths: Floats = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / lengths


def dot(one: Floats, other: Floats) -> Floats:
    """Return the inner products (P,) of vectors (P, 3)."""
    products: Floats = np.einsum("ij,ij->i", one, other)
    return products


def view(orientation: int) -> View:
    """Return the camera of an orientation class, 0 to 14."""
    yaw = np.deg2rad(ORIENTATIONS[orientation])
    backwards = np.array([np.sin(yaw), 0.0, np.cos(yaw)])
    right = np.array([np.cos(yaw), 0.0, -np.sin(yaw)])
    at = (np.arange(IMAGE_SIZE * SUPERSAMPLING) + 0.5) / SUPERSAMPLING - 0.5
    rows, columns = np.meshgrid((at - CENTRE_ROW) / FOCAL, (at - CENTRE_COLUMN) / FOCAL, indexing="ij")
    rays = (columns[..., None] * right - rows[..., None] * UP - backwards).reshape(-1, 3)
    position = ORBIT_RADIUS * backwards + CAMERA_HEIGHT * UP
    return View(position.astype(np.float32), unit(rays).astype(np.float32), backwards.astype(np.float32))


def meet_room(camera: View) -> Hits:
    """Intersect the camera's rays with the empty room: floor, walls, and the sky above them."""
    position, rays = camera.position, camera.rays
    with np.errstate(divide="ignore", invalid="ignore"):
        planes = np.stack([(side - position[axis]) / rays[:, axis] for axis, side in ((0, -1), (0, 1), (2, -1))])
        floor = np.where(rays[:, 1] < 0, -position[1] / rays[:, 1], np.inf)
    planes = np.where(planes > 0, planes, np.inf)
    wall = planes.min(axis=0)
    surface = np.where(position[1] + wall * rays[:, 1] <= WALL_HEIGHT, WALL, SKY)
    surface = np.where(floor < wall, FLOOR, surface).astype(np.int8)
    normal = np.where((surface == FLOOR)[:, None], UP, WALL_NORMALS[planes.argmin(axis=0)])
    distance = np.minimum(floor, wall)
    return Hits(surface, distance, position + distance[:, None] * rays, normal)


def meet_object(origin: Floats, rays: Floats, shape: int, scale: float) -> tuple[Floats, Floats]:
    """Intersect rays (P, 3) with the object.

    Return the distance (P,), infinite where a ray misses, and the unit outward normal (P, 3). `origin` is (3,) or one
    row per ray, outside the object.
    """
    origin = np.broadcast_to(origin, rays.shape)
    if shape == CUBE:
        parts = [_box(origin, rays, CUBE_HALF_SIDE * scale)]
    elif shape == CYLINDER:
        radius, height = CYLINDER_RADIUS * scale, CYLINDER_HEIGHT * scale
        parts = [_tube(origin, rays, 0, height, radius), _lid(origin, rays, height, radius)]
    elif shape == SPHERE:
        parts = [_sphere(origin, rays, SPHERE_RADIUS * scale, SPHERE_RADIUS * scale)]
    else:
        radius, top = CAPSULE_RADIUS * scale, (CAPSULE_RADIUS + CAPSULE_STRAIGHT) * scale
        parts = [
            _tube(origin, rays, radius, top, radius),
            _sphere(origin, rays, radius, radius),
            _sphere(origin, rays, top, radius),
        ]
    distance, normal = parts[0]
    for other_distance, other_normal in parts[1:]:
        nearer = other_distance < distance
        distance = np.where(nearer, other_distance, distance)
        normal = np.where(nearer[:, None], other_normal, normal)
    return np.where(distance > 0, distance, np.inf).astype(np.float32), normal


def _sphere(origin: Floats, rays: Floats, centre_height: float, radius: float) -> tuple[Floats, Floats]:
    offset = origin - np.float32(centre_height) * UP
    b = dot(offset, rays)
    discriminant = b * b - (dot(offset, offset) - radius**2)
    nearest = -b - np.sqrt(np.maximum(discriminant, 0))
    return np.where(discriminant > 0, nearest, np.inf), (offset + nearest[:, None] * rays) / np.float32(radius)


def _tube(origin: Floats, rays: Floats, bottom: float, top: float, radius: float) -> tuple[Floats, Floats]:
    """Intersect rays with the curved side of an upright cylinder around the y axis."""
    a = rays[:, 0] ** 2 + rays[:, 2] ** 2 + np.float32(1e-12)
    b = origin[:, 0] * rays[:, 0] + origin[:, 2] * rays[:, 2]
    discriminant = b * b - a * (origin[:, 0] ** 2 + origin[:, 2] ** 2 - radius**2)
    nearest = (-b - np.sqrt(np.maximum(discriminant, 0))) / a
    point = origin + nearest[:, None] * rays
    met = (discriminant > 0) & (point[:, 1] >= bottom) & (point[:, 1] <= top)
    return np.where(met, nearest, np.inf), point / np.float32(radius) * np.array([1, 0, 1], np.float32)


def _lid(origin: Floats, rays: Floats, height: float, radius: float) -> tuple[Floats, Floats]:
    """Intersect rays with the flat upper end of a cylinder."""
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = (height - origin[:, 1]) / rays[:, 1]
        x, z = origin[:, 0] + distance * rays[:, 0], origin[:, 2] + distance * rays[:, 2]
        met = x * x + z * z <= radius**2
    return np.where(met, distance, np.inf), np.broadcast_to(UP, rays.shape)


def _box(origin: Floats, rays: Floats, half: float) -> tuple[Floats, Floats]:
    """Intersect rays with a cube on the floor, by the slab method.

    A ray is inside between its last entry to and its first exit from the three slabs.
    """
    low = np.array([-half, 0, -half], np.float32)
    high = np.array([half, 2 * half, half], np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = (low - origin) / rays, (high - origin) / rays
    entries, exits = np.minimum(first, second), np.maximum(first, second)
    entry, axis = entries.max(axis=1), entries.argmax(axis=1)
    met = entry <= exits.min(axis=1)
    every = np.arange(len(rays))
    normal = np.zeros_like(rays)
    normal[every, axis] = -np.sign(rays[every, axis])
    return np.where(met, entry, np.inf), normal
