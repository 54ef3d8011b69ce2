"""Heat maps, counterfactuals and drift for a report: what a table of scores does not hold, from images and bundle."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import numpy as np

from service.api.contexts.portable import PortableContext
from service.api.options import most_pictures
from service.api.score_records import ScoresTable, TableInfo
from service.client.calls import CallError, NamedImage
from service.core.drift import Drift
from service.errors import BundleError, InvalidInput
from service.images.decode import Content
from service.offline.in_process import LocalClient, load_bundle
from service.report.report import Pictures, select_outlying
from service.report.stored_images import StoredImages
from service.settings import BUNDLES

# Images that are not flagged, which the flagged ones of their group are compared with: an even sample.
MOST_NORMAL = 1000
FEWEST_NORMAL = 4
# Images of a group that tell its drift, and groups whose drift is told.
DRIFT_IMAGES, MOST_GROUPS = 200, 100
HEAT_MAPS = 2


@dataclass
class Findings:
    """The bundle's pictures and figures for the images of a table.

    pictures  by position among the table's rows
    drift     by group, of a sample of its images
    notes     sentences on what could not be had
    """

    pictures: dict[int, Pictures] = field(default_factory=dict)
    drift: dict[str, float] = field(default_factory=dict)
    live_latents: int | None = None
    notes: list[str] = field(default_factory=list)


def draw_findings(table: ScoresTable, stored: StoredImages, bundle: str | None, count: int) -> Findings:
    """Return pictures of the `count` most outlying flagged images whose files are there, and their groups' drift.

    An image is compared with those of its group that are not flagged: the table does not hold the context.
    Raises BundleError where `bundle` is given and cannot be loaded, or is not the table's own (InvalidInput).
    """
    findings = Findings()
    client = _open_client(table.info, bundle)
    if client is None:
        findings.notes.append(
            "The bundle of the table is not here: no heat maps, no counterfactuals. --bundle names it."
        )
        return findings
    with client:
        findings.live_latents = len(client.bundle.population.live_dims)
        if count == 0:
            return findings
        selected = select_outlying(table.rows, count)
        normal = _group_normal(table)
        for group in list(normal)[:MOST_GROUPS]:
            _find_drift(client, _read(table, stored, _sample(normal[group], DRIFT_IMAGES)), group, findings)
        for group in dict.fromkeys(table.rows[position].group for position in selected):
            members = [position for position in selected if table.rows[position].group == group]
            try:
                _draw_group(client, table, stored, group, members, normal.get(group, []), findings)
            except CallError as error:
                findings.notes.append(f"No pictures of {group or 'the images'}: {error.message} {error.hint}".rstrip())
    return findings


def _open_client(info: TableInfo | None, bundle: str | None) -> LocalClient | None:
    """Return a client of the bundle of that name or path, or else of the one that the table was scored with.

    A table that a service wrote names a model, not a bundle: a bundle is known by its id. None where it is not here.
    """
    if bundle is not None:
        client = LocalClient(bundle)
        if info and info.bundle_id != client.bundle.manifest.bundle_id:
            client.close()
            raise InvalidInput(
                f"{bundle} is not the bundle that the table was scored with ({info.bundle_id[:12]}).",
                "Name that one, or leave --bundle out.",
            )
        return client
    if info is None:
        return None
    for name in (info.bundle, None, *(str(path) for path in sorted(BUNDLES.iterdir()))):
        with suppress(BundleError):
            if load_bundle(name).manifest.bundle_id == info.bundle_id:
                return LocalClient(name)
    return None


def _group_normal(table: ScoresTable) -> dict[str, list[int]]:
    """Return the positions of the images that are not flagged, by group."""
    normal: dict[str, list[int]] = {}
    for position, row in enumerate(table.rows):
        if row.is_outlier is False and not row.is_foreign:
            normal.setdefault(row.group, []).append(position)
    return normal


def _sample(positions: Sequence[int], most: int) -> Sequence[int]:
    """Return an even sample of at most `most` positions."""
    return positions[:: max(1, -(-len(positions) // most))]


def _find_drift(client: LocalClient, images: Mapping[int, Content], group: str, findings: Findings) -> None:
    """Compare images of a group with the population. A group without images that can be read gets no drift."""
    try:
        encoded = client.encode(_name(images)).items if images else []
    except CallError:
        return
    latents = [[item.mean, item.logvar] for item in encoded if item.mean is not None]
    if latents:
        drift = Drift(client.bundle.population)
        drift.add(np.array(latents, dtype=np.float32))
        findings.drift[group] = drift.distance


def _draw_group(
    client: LocalClient,
    table: ScoresTable,
    stored: StoredImages,
    group: str,
    members: Sequence[int],
    normal: Sequence[int],
    findings: Findings,
) -> None:
    context_images = _read(table, stored, _sample(normal, MOST_NORMAL))
    images = _read(table, stored, members)
    if not images or len(context_images) < FEWEST_NORMAL:
        where = f" of {group}" if group else ""
        findings.notes.append(f"No pictures{where}: its image files are not there, or fewer than {FEWEST_NORMAL} fit.")
        return
    context = client.fit(_name(context_images)).context
    # A model that cannot draw shows images of the request that fit.
    exemplars = {} if client.bundle.manifest.capabilities.can_decode else context_images
    at_a_time = max(1, most_pictures(client.bundle.manifest.image) // HEAT_MAPS)
    for start in range(0, len(images), at_a_time):
        some = dict(islice(images.items(), start, start + at_a_time))
        findings.pictures |= _draw_images(client, table, some, exemplars, context)


def _draw_images(
    client: LocalClient,
    table: ScoresTable,
    images: Mapping[int, Content],
    exemplars: Mapping[int, Content],
    context: PortableContext,
) -> dict[int, Pictures]:
    """Return heat maps and counterfactuals of images, by position. Raises CallError."""
    named = _name(images)
    explained = client.explain(named, context=context, heat_maps="all", top=HEAT_MAPS).items
    which = [f"index:{item.index}" for item in explained if item.status == "ok"]
    if not which:
        return {}
    edited = client.edit([*named, *_name(exemplars)], context=context, which=which)
    changes = {int(picture.id): picture for picture in edited.pictures}
    pictures: dict[int, Pictures] = {}
    for item in explained:
        if item.status == "error":
            continue
        changed = changes.get(int(item.id))
        caption = "as it would look if it belonged"
        if changed is not None and changed.exemplar is not None:
            caption = f"an image that fits: {table.rows[int(changed.exemplar)].id}"
        elif changed is not None and changed.changed:
            caption = f"{caption}: {', '.join(changed.changed)} changed"
        pictures[int(item.id)] = Pictures(
            heat_maps={each.latent: base64.b64decode(each.image) for each in (item.heat_maps or ())[:HEAT_MAPS]},
            counterfactual=base64.b64decode(changed.image) if changed is not None and changed.image else None,
            caption=caption,
        )
    return pictures


def _read(table: ScoresTable, stored: StoredImages, positions: Sequence[int]) -> dict[int, Content]:
    """Return the images at those positions that are there."""
    contents: dict[int, Content] = {}
    for position in positions:
        try:
            content = stored.read(table.rows[position])
        except (InvalidInput, OSError):
            continue
        if content is not None:
            contents[position] = content
    return contents


def _name(images: Mapping[int, Content]) -> list[NamedImage]:
    """Return the images with their positions as ids: ids of a table may be there twice."""
    return [NamedImage(str(position), partial(_return, content)) for position, content in images.items()]


def _return(content: Content) -> Content:
    return content
