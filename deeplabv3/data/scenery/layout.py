"""What stands where in a synthetic street, and in which order it is painted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from deeplabv3.data.scenery.buildings import (
    DEPTH_METERS,
    Stretch,
    draw_building,
    draw_fence,
    draw_hedge,
    draw_skyline,
    draw_wall,
)
from deeplabv3.data.scenery.figures import draw_bicycle, draw_motorcycle, draw_person
from deeplabv3.data.scenery.furniture import (
    draw_bush,
    draw_clutter,
    draw_lamp,
    draw_sign,
    draw_traffic_light,
    draw_tree,
)
from deeplabv3.data.scenery.ground import REACH_METERS, Street
from deeplabv3.data.scenery.vehicles import Body, Pose, draw_vehicle, make_bus, make_car, make_train, make_truck

_Paint = Callable[[], None]


@dataclass(frozen=True)
class Item:
    """Something upright: the ground it covers in metres, and how it is painted.

    Attributes:
        left: Its left side; `right`, `near` and `far` likewise.
        paint: Draws it.
        solid: Whether nothing else may be put on the same ground.
    """

    left: float
    right: float
    near: float
    far: float
    paint: _Paint
    solid: bool = False


@dataclass
class Scenery:
    """A street and what stands upright in it."""

    street: Street
    items: list[Item] = field(default_factory=list)

    def add(self, x: float, z: float, paint: _Paint, *, wide: float = 0.3, deep: float = 0.15) -> None:
        """Put something around the point (x, z) of the ground, unless a vehicle is there."""
        self.put(Item(x - wide, x + wide, z - deep, z + deep, paint))

    def put(self, item: Item) -> None:
        """Put something on the ground, unless a vehicle is there."""
        for other in self.items:
            if other.solid and item.left < other.right and item.right > other.left:
                if item.near < other.far + 0.3 and item.far > other.near - 0.3:
                    return
        self.items.append(item)


def lay_out(street: Street) -> Scenery:
    """Fill a street; vehicles first, so that nobody is put where one stands."""
    scenery = Scenery(street)
    _add_traffic(scenery)
    _line_street(scenery)
    for side in (0, 1):
        _furnish_pavement(scenery, side)
        _park_two_wheelers(scenery, side)
    _add_traffic_lights(scenery)
    return scenery


def _line_street(scenery: Scenery) -> None:
    """Houses, walls, fences, hedges and gaps along both borders."""
    street, rng = scenery.street, scenery.street.canvas.rng
    for side in (0, 1):
        z = 1.2
        low = rng.random() < 0.35  # suburbs: more gardens than houses
        while z < REACH_METERS:
            length = rng.uniform(7, 17)
            if street.is_side_street(z, z + length) and street.crossing is not None:
                length = street.crossing[0] - 2.2 - z
                if length > 2.5:
                    _add_border(scenery, side, z, z + length, low)
                z = street.crossing[1] + 2.2
                continue
            _add_border(scenery, side, z, z + length, low)
            z += length


def _add_border(scenery: Scenery, side: int, z0: float, z1: float, low: bool) -> None:
    """One stretch of a border: a house, or something low with a garden behind it."""
    street = scenery.street
    canvas, rng = street.canvas, street.canvas.rng
    x, out = street.borders[side], -1.0 if side == 0 else 1.0
    stretch, kind = Stretch(x, z0, z1), rng.random()

    def put(paint: Callable[[], None], inner: float, outer: float) -> None:
        ends = (x + out * inner, x + out * outer)
        scenery.put(Item(min(ends), max(ends), z0, z1, paint))

    if kind < (0.22 if low else 0.62):
        put(partial(draw_building, canvas, stretch, float(rng.uniform(5, 20))), 0.0, DEPTH_METERS)
        return
    if rng.random() < 0.55:
        setback = float(rng.uniform(6, 14))
        house = partial(draw_building, canvas, Stretch(x + out * setback, z0, z1), float(rng.uniform(4, 11)))
        put(house, setback, setback + DEPTH_METERS)
    for z in np.arange(z0 + 1.5, z1 - 1, rng.uniform(3.5, 7)).tolist():
        spot = x + out * rng.uniform(1.5, 5)
        paint = draw_tree if rng.random() < 0.5 else draw_bush
        scenery.add(spot, z, partial(paint, canvas, spot, z))
    part = rng.random()
    if part < 0.36:
        put(partial(draw_wall, canvas, stretch, float(rng.uniform(1.4, 3.2))), 0.0, 0.35)
    elif part < 0.76:
        put(partial(draw_fence, canvas, stretch, float(rng.uniform(1.0, 2.0))), 0.0, 0.1)
    elif part < 0.92:
        put(partial(draw_hedge, canvas, stretch, float(rng.uniform(0.9, 2.2))), 0.0, 0.6)


def _furnish_pavement(scenery: Scenery, side: int) -> None:
    """Lamps, trees, signs, traffic lights, bins, parked two-wheelers and people beside the road."""
    street = scenery.street
    canvas, rng = street.canvas, street.canvas.rng
    out = -1.0 if side == 0 else 1.0
    kerb, edge = street.kerbs[side], street.pavements[side]
    if rng.random() < 0.8:
        x = kerb + out * 0.45
        for z in np.arange(rng.uniform(6, 22), 75, rng.uniform(16, 26)).tolist():
            scenery.add(x, z, partial(draw_lamp, canvas, x, z))
    if rng.random() < 0.45:
        x = kerb + out * 0.8
        for z in np.arange(rng.uniform(9, 24), 70, rng.uniform(7, 13)).tolist():
            scenery.add(x, z, partial(draw_tree, canvas, x, z))
    for z in rng.uniform(6, 32, int(rng.integers(0, 3))).tolist():
        x = kerb + out * rng.uniform(0.3, 0.7)
        scenery.add(x, z, partial(draw_sign, canvas, x, z))
    for z in rng.uniform(6, 30, int(rng.integers(0, 2))).tolist():
        x = edge - out * rng.uniform(0.3, 0.7)
        scenery.add(x, z, partial(draw_clutter, canvas, x, z))
    for z in rng.uniform(5.5, 38, int(rng.integers(0, 6))).tolist():
        x = kerb + out * rng.uniform(0.5, abs(edge - kerb) - 0.3)
        scenery.add(x, z, partial(draw_person, canvas, x, z))


def _add_traffic_lights(scenery: Scenery) -> None:
    """A pair of traffic lights before the side street."""
    street = scenery.street
    canvas, rng = street.canvas, street.canvas.rng
    if rng.random() < 0.7:
        z = street.crossing[0] - 1.5 if street.crossing is not None else rng.uniform(9, 24)
        lit = int(rng.integers(0, 3))
        for x in (street.kerbs[0] - 0.5, street.kerbs[1] + 0.5):
            scenery.add(x, z, partial(draw_traffic_light, canvas, x, z, lit))


def _park_two_wheelers(scenery: Scenery, side: int) -> None:
    """Bicycles or a motorcycle on the pavement."""
    street = scenery.street
    canvas, rng = street.canvas, street.canvas.rng
    out = -1.0 if side == 0 else 1.0
    if rng.random() < 0.22:
        z, turn = rng.uniform(6, 16), rng.uniform(0.45, 1.0)
        for _ in range(int(rng.integers(1, 4))):
            x = street.pavements[side] - out * rng.uniform(0.7, 1.0)
            scenery.add(x, z, partial(draw_bicycle, canvas, x, z, turn, False), wide=0.5)
            z += rng.uniform(0.7, 1.2)
    if rng.random() < 0.2:
        x, z = street.kerbs[side] + out * rng.uniform(0.8, 1.2), rng.uniform(6.5, 17)
        turn = rng.uniform(0.45, 1.0) * (1 if rng.random() < 0.5 else -1)
        scenery.add(x, z, partial(draw_motorcycle, canvas, x, z, turn, False), wide=0.6)


def _add_vehicle(scenery: Scenery, body: Body, x: float, z: float, heading: str) -> None:
    """Put a vehicle with its middle at `x` and its near end at `z`; crossing ones with their left end at `x`."""
    pose = Pose(x if heading in ("left", "right") else x - body.width / 2, z, heading)
    across, deep = (body.length, body.width) if pose.crosses else (body.width, body.length)
    paint = partial(draw_vehicle, scenery.street.canvas, body, pose)
    scenery.put(Item(pose.x, pose.x + across, z, z + deep, paint, solid=True))


def _fill_lane(scenery: Scenery, x: float, heading: str, start: float, *, parked: bool) -> None:
    """Vehicles one behind the other along a lane, from `start` metres on."""
    street = scenery.street
    canvas, rng = street.canvas, street.canvas.rng
    z = start
    while z < 60:
        kind = rng.random()
        if kind < (0.86 if parked else 0.46):
            body = make_car(rng)
        elif kind < (0.96 if parked else 0.6):
            body = make_truck(rng)
        elif kind < 0.73 and not parked:
            body = make_bus(rng)
        else:
            turn = rng.uniform(0.3, 0.75) * (1 if rng.random() < 0.5 else -1)
            side = x + rng.uniform(-0.4, 0.7)
            paint = draw_motorcycle if rng.random() < 0.48 or parked else draw_bicycle
            scenery.add(side, z, partial(paint, canvas, side, z, turn, not parked), wide=0.5, deep=0.6)
            z += rng.uniform(3, 9)
            continue
        if not (parked and street.is_side_street(z - 4, z + body.length + 1)):
            _add_vehicle(scenery, body, x + rng.uniform(-0.15, 0.15), z, heading)
        z += body.length + (rng.uniform(0.8, 9) if parked else rng.uniform(4, 24))


def _add_traffic(scenery: Scenery) -> None:
    """Vehicles and riders in every lane, on the track and in the side street, and people on the crossing."""
    street = scenery.street
    canvas, rng = street.canvas, street.canvas.rng
    left, right = street.kerbs
    if street.crossing is not None and rng.random() < 0.6:
        _cross(scenery, rng.uniform(street.crossing[0] + 0.6, street.crossing[1] - 3.0))
    _fill_lane(scenery, 0.0, "away", rng.uniform(9, 30), parked=False)
    if right > 3.6 and rng.random() < 0.8:
        _fill_lane(scenery, right - 1.1, "away", rng.uniform(5, 14), parked=True)
    elif right > 2.6 and rng.random() < 0.4:
        z = rng.uniform(6, 18)
        turn = rng.uniform(0.3, 0.7)
        scenery.add(right - 0.6, z, partial(draw_bicycle, canvas, right - 0.6, z, turn, True), wide=0.4, deep=0.6)
    if street.track is not None:
        if rng.random() < 0.8:
            heading = "toward" if rng.random() < 0.6 else "away"
            _add_vehicle(scenery, make_train(rng), street.track, rng.uniform(9, 26), heading)
    else:
        _fill_lane(scenery, -3.3, "toward", rng.uniform(7, 22), parked=False)
        if left < -6.3 and rng.random() < 0.8:
            _fill_lane(scenery, left + 1.1, "toward", rng.uniform(6, 16), parked=True)
    if street.crossing is None:
        return
    near = street.crossing[0]
    for x in rng.uniform(left, right, int(rng.integers(0, 4))).tolist():
        z = near - rng.uniform(1.2, 3.4)
        scenery.add(x, z, partial(draw_person, canvas, x, z))


def _cross(scenery: Scenery, z: float) -> None:
    """Something that drives along the side street, across the picture."""
    street = scenery.street
    canvas, rng = street.canvas, street.canvas.rng
    heading = "left" if rng.random() < 0.5 else "right"
    half = z * canvas.camera.width / canvas.camera.focal_pixels / 2
    kind = rng.random()
    if kind < 0.4:
        x, turn = rng.uniform(-half, half) * 0.8, 1.0 if heading == "right" else -1.0
        paint = draw_motorcycle if rng.random() < 0.5 else draw_bicycle
        scenery.add(x, z, partial(paint, canvas, x, z, turn * rng.uniform(0.8, 1.0), True), wide=0.9, deep=0.4)
        return
    body = make_car(rng) if kind < 0.65 else make_truck(rng) if kind < 0.83 else make_bus(rng)
    _add_vehicle(scenery, body, rng.uniform(-half, half) - body.length / 2, z, heading)


def paint_items(scenery: Scenery) -> None:
    """Paint everything upright so that what is in front covers what is behind."""
    items = scenery.items
    draw_skyline(scenery.street.canvas, REACH_METERS)
    for index in _far_to_near(items):
        items[index].paint()


def _far_to_near(items: list[Item]) -> list[int]:
    """Order in which no item covers one in front of it, as far as such an order exists."""
    left, right, near, far = (
        np.array([getattr(item, name) for item in items]) for name in ("left", "right", "near", "far")
    )
    # Seen directions: only what can overlap in the picture needs an order, and less of it leads to no circles.
    margin = 1.5  # metres; crowns and lamps reach further than they stand
    first = np.minimum((left - margin) / near, (left - margin) / far)
    last = np.maximum((right + margin) / near, (right + margin) / far)
    meet = (first[:, None] < last[None, :]) & (last[:, None] > first[None, :])
    beyond = near[:, None] >= far[None, :]
    # Side by side on one side of the camera, what is nearer to the middle of the street is in front.
    on_right = (left[:, None] >= np.maximum(right, 0)[None, :]) & (right > 0)[None, :]
    on_left = (right[:, None] <= np.minimum(left, 0)[None, :]) & (left < 0)[None, :]
    behind = meet & (beyond | ((on_right | on_left) & ~beyond.T))
    waiting = behind.sum(0).astype(np.int64)
    left_over = np.ones(len(items), bool)
    order = []
    for _ in items:
        ready = left_over & (waiting == 0)
        candidates = ready if ready.any() else left_over  # a circle is cut at its furthest item
        index = int(np.where(candidates, far, -np.inf).argmax())
        order.append(index)
        left_over[index] = False
        waiting -= behind[index]
    return order
