"""The light of 3D Shapes: a lamp below the ceiling, a light at the camera, and the shading of each surface.

    colour = clip(intensity * hue + gloss)
    intensity = texture * (ambient + head * max(0, n.c) + lamp * lit * spot * max(0, n.l))
    gloss = GLOSS * spot where n.l > 0, on the object only

n is the normal, c the direction to the camera (its axis, not the ray), l the direction to the lamp, and spot =
cos(angle off straight down)^10. This is the classic fixed-function model, fitted on the pixels of real frames. With its
two light directions, one lamp position (which the shadows confirm) and one weight per kind of surface the mean error is
about one grey level. Round objects are lit at the vertices of a mesh of 28 slices and 16 stacks and interpolated
between them, which gives their highlights the jagged edge of the originals.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from train.data.shapes3d import scene
from train.data.shapes3d.scene import CUBE, CYLINDER, FLOOR, OBJECT, WALL, Floats

LAMP = np.array([-0.42, 2.17, -0.155], np.float32)
SPOT_EXPONENT = 10
# Weights by surface: sky (no light), floor, wall, object.
AMBIENT_WEIGHT = np.array([0, 0.3392, 0.3467, 0.3496], np.float32)
HEAD_WEIGHT = np.array([0, 0, 0.5837, 0.5996], np.float32)
LAMP_WEIGHT = np.array([0, 0.9644, 0.9162, 1.013], np.float32)
GLOSS = 0.1502

SLICE, STACK = 2 * np.pi / 28, np.pi / 16  # radians between the vertices of a round object

# Departures from 1, in thousandths, averaged over the pixels of the reference frames: `wall` is one tile, repeated
# every WALL_TILE; `floor` covers the whole floor, and is 0 where too few frames show it.
TEXTURES = Path(__file__).with_name("textures.npz")
WALL_TILE = 4 / 7
LEFT_WALL_SHIFT = 0.01
# Shadow rays start this far off the surface, so that they do not meet the surface itself.
CLEARANCE = np.float32(1e-3)


@dataclass(frozen=True)
class Samples:
    """The sub-samples of an image: `surface`, `intensity` of its hue, and added white `gloss`, each (P,)."""

    surface: NDArray[np.int8]
    intensity: Floats
    gloss: Floats


def samples(scale: int, shape: int, orientation: int) -> Samples:
    """Trace and light one geometry, given by its factor classes."""
    camera, room, lit, shadowed = _room(orientation)
    size = float(scene.SCALES[scale])
    near, distance, normal = _visible_object(camera, room, shape, size)

    surface = room.surface.copy()
    surface[near] = OBJECT
    intensity = np.where(_in_shadow(room.point, room.normal, shape, size), shadowed, lit)
    gloss = np.zeros_like(intensity)
    point = camera.position + distance[:, None] * camera.rays[near]
    intensity[near], gloss[near] = _light_object(point, normal, camera.towards_camera, shape, size)
    return Samples(surface, intensity, gloss)


def _visible_object(
    camera: scene.View, room: scene.Hits, shape: int, size: float
) -> tuple[NDArray[np.intp], Floats, Floats]:
    """Return which rays (Q,) meet the object before the room, the distance (Q,) and the normal (Q, 3) there."""
    candidates = np.nonzero(_passes_near_object(camera.position, camera.rays, size))[0]
    distance, normal = scene.meet_object(camera.position, camera.rays[candidates], shape, size)
    near = distance < room.distance[candidates]
    return candidates[near], distance[near], normal[near]


def _in_shadow(point: Floats, normal: Floats, shape: int, size: float) -> NDArray[np.bool_]:
    """Return whether the object stands between points (P, 3) of the room and the lamp."""
    towards_lamp = scene.unit(LAMP - point)
    origin = point + CLEARANCE * normal
    shadow = _passes_near_object(origin, towards_lamp, size)
    distance, _ = scene.meet_object(origin[shadow], towards_lamp[shadow], shape, size)
    shadow[shadow] = np.isfinite(distance)
    return shadow


def _passes_near_object(origin: Floats, rays: Floats, size: float) -> NDArray[np.bool_]:
    """Return whether rays (P, 3) meet a sphere around an object of any shape.

    Most rays miss the sphere, and need no exact test.
    """
    centre = np.array([0, scene.ENCLOSING_HEIGHT * size, 0], np.float32)
    offset = np.broadcast_to(centre - origin, rays.shape)
    along = scene.dot(offset, rays)
    near: NDArray[np.bool_] = scene.dot(offset, offset) - along**2 < (scene.ENCLOSING_RADIUS * size) ** 2
    return near


@cache
def _room(orientation: int) -> tuple[scene.View, scene.Hits, Floats, Floats]:
    """Return the camera, the empty room, and the room's intensity (P,) with and without the lamp."""
    camera = scene.view(orientation)
    room = scene.meet_room(camera)
    texture = _texture(room)
    diffuse, _ = _lamp(room.point, room.normal)
    shadowed = AMBIENT_WEIGHT[room.surface] + HEAD_WEIGHT[room.surface] * _head(room.normal, camera.towards_camera)
    lit = shadowed + LAMP_WEIGHT[room.surface] * diffuse
    return camera, room, lit * texture, shadowed * texture


def _light_object(
    point: Floats, normal: Floats, towards_camera: Floats, shape: int, size: float
) -> tuple[Floats, Floats]:
    """Return intensity and gloss (Q,) of an object at points (Q, 3)."""
    terms = _terms(point, normal, towards_camera)
    if shape != CUBE:
        lid = (shape == CYLINDER) & (normal[:, 1] > 0.5)
        terms[:, ~lid] = _interpolated_terms(point[~lid], normal[~lid], towards_camera, shape, size)
    diffuse, glossy, head = terms
    intensity = AMBIENT_WEIGHT[OBJECT] + HEAD_WEIGHT[OBJECT] * head + LAMP_WEIGHT[OBJECT] * diffuse
    return intensity, np.float32(GLOSS) * glossy


def _interpolated_terms(point: Floats, normal: Floats, towards_camera: Floats, shape: int, size: float) -> Floats:
    """Return `_terms` at the four vertices around each point, interpolated (Gouraud shading)."""
    radius = (
        size
        * {
            CYLINDER: scene.CYLINDER_RADIUS,
            scene.SPHERE: scene.SPHERE_RADIUS,
            scene.CAPSULE: scene.CAPSULE_RADIUS,
        }[shape]
    )
    centre = point - radius * normal  # of the sphere or of the circle that the point lies on
    azimuth = np.arctan2(normal[:, 2], normal[:, 0]) / SLICE
    elevation = np.arcsin(np.clip(normal[:, 1], -1, 1)) / STACK
    total = np.zeros((3, len(point)), np.float32)
    for along in (0, 1):
        for above in (0, 1):
            slice_, stack = np.floor(azimuth) + along, np.floor(elevation) + above
            weight = (1 - np.abs(azimuth - slice_)) * (1 - np.abs(elevation - stack))
            a, e = slice_ * SLICE, stack * STACK
            vertex = np.stack([np.cos(e) * np.cos(a), np.sin(e), np.cos(e) * np.sin(a)], axis=1).astype(np.float32)
            total += weight * _terms(centre + radius * vertex, vertex, towards_camera)
    return total


def _terms(point: Floats, normal: Floats, towards_camera: Floats) -> Floats:
    """Return the lamp's diffuse and glossy terms and the head light's, (3, Q)."""
    return np.stack([*_lamp(point, normal), _head(normal, towards_camera)])


def _lamp(point: Floats, normal: Floats) -> tuple[Floats, Floats]:
    """Return the diffuse term spot * max(0, n.l) and the glossy one, spot where n.l > 0, each (P,)."""
    direction = scene.unit(LAMP - point)
    cosine = scene.dot(normal, direction)
    spot = np.maximum(direction[:, 1], 0) ** SPOT_EXPONENT
    return np.maximum(cosine, 0) * spot, (cosine > 0) * spot


def _head(normal: Floats, towards_camera: Floats) -> Floats:
    facing: Floats = np.maximum(scene.dot(normal, np.broadcast_to(towards_camera, normal.shape)), 0)
    return facing


def _texture(room: scene.Hits) -> Floats:
    """Return the factor (P,) by which the surfaces' patterns change their intensity."""
    with np.load(TEXTURES) as textures:
        wall, floor = (textures[name].astype(np.float32) / 1000 for name in ("wall", "floor"))
    factor = np.ones(len(room.point), np.float32)

    x, _, z = room.point[room.surface == FLOOR].T
    rows, columns = ((at + 1) / 2 * len(floor) - 0.5 for at in (z, x))
    factor[room.surface == FLOOR] += map_coordinates(floor, np.stack([rows, columns]), order=1, mode="nearest")

    x, y, z = room.point[room.surface == WALL].T
    facing_x, _, facing_z = room.normal[room.surface == WALL].T
    # The pattern runs to the right as seen from inside the room, on each wall.
    along = np.where(facing_z > 0, x, np.where(facing_x > 0, LEFT_WALL_SHIFT - z, z))
    rows, columns = (at / WALL_TILE * len(wall) - 0.5 for at in (y, along))
    factor[room.surface == WALL] += map_coordinates(wall, np.stack([rows, columns]), order=1, mode="grid-wrap")
    return factor
