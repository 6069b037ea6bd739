"""Cars, vans, trucks, buses and trains of a synthetic street, as profiles pulled out to the vehicle's width.

A profile lies in the plane of the vehicle's side: `s` metres from its rear to its front, `y` metres up. It runs from
the rear bumper over the roof to the front bumper; each of its edges is one panel across the vehicle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from deeplabv3.data.scenery.painting import Canvas, Point, envelope
from deeplabv3.data.scenery.textures import SMOOTH, Color, any_color, varied

DARK: Color = (30.0, 31.0, 34.0)


@dataclass(frozen=True)
class Body:
    """The shape and the colours of one vehicle.

    Attributes:
        label: Name of its class.
        width: Metres across.
        profile: Outline (s, y) from the lowest point of the rear to the lowest point of the front.
        panels: Colour of each edge of the profile.
        sides: Polygons (s, y) on its flank with their colours, drawn in order.
        wheels: (s, radius) of each axle.
        glass: Colour of its windows; a panel of this colour gets a frame of `paint`.
        paint: Colour of the frames of its windows.
        trim: Colour of its lower edges.
        end_windows: Lower and upper edge in metres of windows in an upright rear and front; None for none.
    """

    label: str
    width: float
    profile: tuple[Point, ...]
    panels: tuple[Color, ...]
    sides: tuple[tuple[tuple[Point, ...], Color], ...]
    wheels: tuple[tuple[float, float], ...]
    glass: Color
    paint: Color
    trim: Color
    end_windows: tuple[Point | None, Point | None] = (None, None)

    @property
    def length(self) -> float:
        """Metres from the rear to the front."""
        return max(s for s, _ in self.profile)


@dataclass(frozen=True)
class Pose:
    """Where a vehicle stands: the near left corner of its ground, and where its front points.

    Attributes:
        x: Its left side in metres.
        z: Its near side in metres.
        heading: "away" from the camera, "toward" it, or across the picture to the "left" or "right".
    """

    x: float
    z: float
    heading: str

    @property
    def crosses(self) -> bool:
        """Whether the vehicle drives across the picture."""
        return self.heading in ("left", "right")


def box(s0: float, y0: float, s1: float, y1: float) -> tuple[Point, ...]:
    """A rectangle of a flank."""
    return (s0, y0), (s1, y0), (s1, y1), (s0, y1)


def _glass(rng: np.random.Generator) -> Color:
    return varied(rng, (76.0, 88.0, 98.0), 0.5)


def make_car(rng: np.random.Generator) -> Body:
    """A saloon, a hatchback or a small van."""
    paint, glass = any_color(rng), _glass(rng)
    kind = rng.random()
    if kind < 0.4:  # saloon: a boot behind the rear window
        top, waist = rng.uniform(1.38, 1.48), 0.93
        roof = [(0.75, 1.0), (1.35, top - 0.05), (2.5, top), (3.3, 0.98), (4.3, 0.78)]
        panels = [DARK, paint, paint, glass, paint, glass, paint, paint, DARK]
        window = [(0.95, waist), (1.4, top - 0.12), (2.45, top - 0.09), (3.1, waist)]
        length = 4.5
    elif kind < 0.8:  # hatchback or estate: the rear window ends the car
        top, waist = rng.uniform(1.45, 1.7), 0.95
        roof = [(0.35, top - 0.08), (0.8, top), (2.2, top), (3.0, 1.0), (3.95, 0.8)]
        panels = [DARK, paint, glass, paint, paint, glass, paint, paint, DARK]
        window = [(0.3, waist), (0.5, top - 0.15), (2.15, top - 0.1), (2.85, waist)]
        length = 4.15
    else:  # van
        top, waist = rng.uniform(1.8, 2.05), 1.1
        roof = [(0.12, top - 0.1), (0.4, top), (3.2, top), (4.0, 1.15), (4.7, 0.9)]
        panels = [DARK, paint, glass, paint, paint, glass, paint, paint, DARK]
        window = [(0.4, waist), (0.4, top - 0.2), (3.1, top - 0.15), (3.8, waist)]
        length = 4.8
    profile = ((0.3, 0.03), (0.0, 0.34), (0.04, 0.92), *roof, (length, 0.4), (length - 0.3, 0.03))
    flank = ((0.0, 0.34), (0.04, 0.92), *roof, (length, 0.4), (length - 0.1, 0.2), (0.1, 0.2))
    pillar = window[1][0] + 0.48 * (window[2][0] - window[1][0])
    sides = [(box(0.3, 0.03, length - 0.3, 0.3), DARK), (flank, paint), (tuple(window), glass),
             (box(pillar - 0.05, waist - 0.02, pillar + 0.05, top - 0.08), paint),
             (box(0.1, 0.2, length - 0.1, 0.3), varied(rng, DARK, 0.4)),
             (box(pillar - 0.01, 0.35, pillar + 0.02, waist), _darker(paint)),
             (box(0.05, 0.62, length - 0.1, 0.66), _darker(paint))]  # fmt: skip
    wheels = ((0.78, 0.32), (length - 0.85, 0.32))
    return Body("car", rng.uniform(1.68, 1.85), profile, tuple(panels), tuple(sides), wheels, glass, paint,
                _darker(paint))  # fmt: skip


def _darker(color: Color) -> Color:
    return color[0] * 0.68, color[1] * 0.68, color[2] * 0.68


def make_truck(rng: np.random.Generator) -> Body:
    """A cab and, behind a gap, a plain high box, a tarpaulin or an open load."""
    paint, load, glass = any_color(rng), any_color(rng), _glass(rng)
    bed, tall, cab = rng.uniform(3.8, 6.5), rng.uniform(3.0, 3.8), rng.uniform(2.5, 3.1)
    if rng.random() < 0.25:
        tall = rng.uniform(1.7, 2.2)
    gap, front = bed + 0.35, bed + 2.2
    profile = ((0.2, 0.45), (0.0, 0.9), (0.0, tall), (bed, tall), (bed, 1.0), (gap, 1.0), (gap, cab),
               (front - 0.3, cab), (front - 0.1, 1.55), (front, 0.45), (front - 0.2, 0.3))  # fmt: skip
    panels = (DARK, load, load, load, DARK, paint, paint, glass, paint, DARK)
    ribs = [(box(s - 0.03, 1.0, s + 0.03, tall), _darker(load)) for s in np.arange(0.8, bed, 0.9).tolist()]
    logo = box(0.25 * bed, 1.0 + 0.35 * (tall - 1), 0.75 * bed, 1.0 + 0.65 * (tall - 1))
    sides = [(box(0.1, 0.4, front - 0.1, 1.0), DARK), (box(0.0, 0.9, bed, tall), load), *ribs,
             *([(logo, any_color(rng))] if rng.random() < 0.5 and tall > 2.5 else []),
             (((gap, 0.45), (gap, cab), (front - 0.3, cab), (front - 0.1, 1.55), (front, 0.45)), paint),
             (((gap + 0.7, 1.5), (gap + 0.7, cab - 0.3), (front - 0.42, cab - 0.3), (front - 0.25, 1.5)), glass),
             (box(gap + 0.6, 0.5, gap + 0.64, cab - 0.1), _darker(paint)),
             (box(1.6, 0.5, bed - 1.0, 0.85), (105.0, 106.0, 108.0))]  # fmt: skip
    wheels = ((0.9, 0.48), (1.95, 0.48), (front - 1.0, 0.48)) if bed > 5 else ((0.9, 0.48), (front - 1.0, 0.48))
    return Body("truck", rng.uniform(2.3, 2.5), profile, panels, tuple(sides), wheels, glass, paint,
                _darker(load))  # fmt: skip


def make_bus(rng: np.random.Generator) -> Body:
    """A city bus: one box with a long row of large windows, doors and low wheels."""
    paint, glass = any_color(rng), _glass(rng)
    length, tall = rng.uniform(9, 12), rng.uniform(2.85, 3.15)
    lower = any_color(rng) if rng.random() < 0.5 else paint
    profile = ((0.15, 0.25), (0.0, 0.5), (0.06, tall), (0.25, tall + 0.1), (length - 0.3, tall + 0.1),
               (length - 0.12, tall), (length, 0.5), (length - 0.15, 0.25))  # fmt: skip
    panels = (DARK, paint, paint, paint, paint, paint, DARK)
    flank = ((0.05, 0.28), (0.06, tall), (0.25, tall + 0.1), (length - 0.3, tall + 0.1), (length - 0.1, tall),
             (length, 0.5), (length - 0.05, 0.28))  # fmt: skip
    panes = length - 1.0
    num_panes = int(rng.integers(5, 8))
    pillars = [(box(s - 0.05, 1.15, s + 0.05, 2.45), paint) for s in np.linspace(0.5, 0.5 + panes, num_panes + 1)[1:-1]]
    doors = [(box(s, 0.35, s + 1.2, 2.4), _glass(rng)) for s in (length - 1.9, length * 0.45)]
    bars = [(box(s + 0.57, 0.35, s + 0.63, 2.4), paint) for s in (length - 1.9, length * 0.45)]
    sides = [(flank, paint), (box(0.06, 0.28, length - 0.03, 1.0), lower), (box(0.4, 1.15, length - 0.3, 2.45), glass),
             *pillars, *doors, *bars, (box(0.06, 0.28, length - 0.05, 0.4), DARK)]  # fmt: skip
    wheels = ((2.3, 0.45), (length - 2.6, 0.45))
    windows = ((1.6, 2.5), (1.05, 2.5))
    return Body("bus", 2.5, profile, panels, tuple(sides), wheels, glass, paint, lower, windows)


def make_train(rng: np.random.Generator) -> Body:
    """A tram of two or three coupled parts: a skirt instead of wheels, a band of windows, rounded ends, a stripe."""
    paint, stripe, glass = any_color(rng), any_color(rng), _glass(rng)
    parts = int(rng.integers(2, 4))
    length, tall = parts * rng.uniform(7, 9), rng.uniform(3.2, 3.5)
    profile = ((0.9, 0.12), (0.3, 0.3), (0.0, 1.0), (0.7, tall - 0.3), (1.5, tall), (length - 1.5, tall),
               (length - 0.7, tall - 0.3), (length, 1.0), (length - 0.3, 0.3), (length - 0.9, 0.12))  # fmt: skip
    panels = (DARK, stripe, glass, paint, paint, paint, glass, stripe, DARK)
    joints = [(box(s - 0.22, 0.2, s + 0.22, tall), DARK) for s in (np.arange(1, parts) * length / parts).tolist()]
    pillars = [(box(s - 0.06, 1.25, s + 0.06, 2.55), paint) for s in np.arange(2.6, length - 1.5, 1.7).tolist()]
    doors = [(box(s, 0.4, s + 1.2, 2.6), _darker(glass)) for s in ((np.arange(parts) + 0.5) * length / parts).tolist()]
    sides = [(profile, paint), (box(1.5, 1.25, length - 1.5, 2.55), glass), *pillars, *doors,
             (box(0.2, 0.62, length - 0.2, 1.0), stripe), (box(1.0, tall - 0.28, length - 1.0, tall - 0.2), stripe),
             *joints, (box(0.7, 0.12, length - 0.7, 0.4), DARK)]  # fmt: skip
    return Body("train", 2.5, profile, panels, tuple(sides), (), glass, paint, stripe)


def draw_vehicle(canvas: Canvas, body: Body, pose: Pose) -> None:
    """Draw a vehicle with its shadow; nothing when it lies outside the picture."""
    length, width = body.length, body.width
    across, deep = (length, width) if pose.crosses else (width, length)
    near = [_place(canvas, body, pose, s, y, 0) for s, y in body.profile]
    far = [_place(canvas, body, pose, s, y, 1) for s, y in body.profile]
    panels = [(near[i], near[i + 1], far[i + 1], far[i]) for i in range(len(near) - 1)]
    outline = envelope([near, far, *panels], axis=0)
    canvas.shadow(pose.x - 0.1, pose.x + across + 0.1, pose.z - 0.1, pose.z + deep, 0.32)
    if not canvas.label(body.label, outline, SMOOTH):
        return
    canvas.fill(outline, DARK, z=pose.z)
    _draw_wheels(canvas, body, pose, hidden=True)
    _draw_panels(canvas, body, pose)
    _draw_flank(canvas, body, pose)
    _draw_wheels(canvas, body, pose, hidden=False)
    if not pose.crosses:
        _draw_end(canvas, body, pose)


def _place(canvas: Canvas, body: Body, pose: Pose, s: float, y: float, t: float) -> Point:
    """Pixel of a point of the vehicle; `t` 0..1 runs across it from its left or near side."""
    along = s if pose.heading in ("away", "right") else body.length - s
    if pose.crosses:
        return canvas.camera.project(pose.x + along, y, pose.z + t * body.width)
    return canvas.camera.project(pose.x + t * body.width, y, pose.z + along)


def _camera_position(canvas: Canvas, body: Body, pose: Pose) -> Point:
    """The camera as (s, y) of the vehicle."""
    ahead = -pose.x if pose.crosses else -pose.z
    return (ahead if pose.heading in ("away", "right") else body.length - ahead), canvas.camera.eye_meters


def _draw_panels(canvas: Canvas, body: Body, pose: Pose) -> None:
    """Draw those panels across the vehicle whose outside is seen, far ones first."""
    eye_s, eye_y = _camera_position(canvas, body, pose)
    order = sorted(range(len(body.panels)), key=lambda edge: -abs(body.profile[edge][0] - eye_s))
    for edge in order:
        (s0, y0), (s1, y1) = body.profile[edge], body.profile[edge + 1]
        outward = (y0 - y1) * (eye_s - s0) + (s1 - s0) * (eye_y - y0)
        if outward <= 0:
            continue
        color = body.panels[edge]
        upward = abs(s1 - s0) / max(math.hypot(s1 - s0, y1 - y0), 1e-6)
        brightness = canvas.light.facing_camera + (canvas.light.facing_up - canvas.light.facing_camera) * upward
        canvas.fill(_panel(canvas, body, pose, edge, 0), body.paint if color == body.glass else color, z=pose.z,
                    light=brightness)  # fmt: skip
        if color == body.glass:
            canvas.fill(_panel(canvas, body, pose, edge, 0.09), color, z=pose.z, light=brightness)


def _panel(canvas: Canvas, body: Body, pose: Pose, edge: int, inset: float) -> list[Point]:
    """Pixels of the panel at an edge of the profile, `inset` from both flanks as a part of the width."""
    start, end = body.profile[edge], body.profile[edge + 1]
    corners = ((start, inset), (end, inset), (end, 1 - inset), (start, 1 - inset))
    return [_place(canvas, body, pose, s, y, t) for (s, y), t in corners]


def _visible_flank(body: Body, pose: Pose) -> float | None:
    """Which flank the camera sees: the `t` of it, or None when it looks straight at an end."""
    if pose.crosses:
        return 0.0
    if pose.x > 0:
        return 0.0
    return 1.0 if pose.x + body.width < 0 else None


def _draw_flank(canvas: Canvas, body: Body, pose: Pose) -> None:
    t = _visible_flank(body, pose)
    if t is None:
        return
    light = canvas.light
    brightness = light.facing_camera if pose.crosses else light.side(pose.x)
    for polygon, color in body.sides:
        points = [_place(canvas, body, pose, s, y, t) for s, y in polygon]
        canvas.fill(points, color, z=pose.z, light=brightness)


def _draw_wheels(canvas: Canvas, body: Body, pose: Pose, *, hidden: bool) -> None:
    """Draw the wheels of the flank that is seen, or, before the body, those of the other one."""
    seen = _visible_flank(body, pose)
    t = (0.0 if seen is None else 1 - seen) if hidden else seen
    if t is None:
        return
    angles = np.arange(0, 2 * math.pi, math.pi / 7)
    for s, radius in body.wheels:
        for size, color in ((radius, (22.0, 22.0, 24.0)), (radius * 0.55, (120.0, 122.0, 126.0))):
            rim = [_place(canvas, body, pose, s + size * math.cos(a), radius + size * math.sin(a), t) for a in angles]
            canvas.fill(rim, color, z=pose.z, light=0.9)


def _draw_end(canvas: Canvas, body: Body, pose: Pose) -> None:
    """Lights, bumper, plate, tyres and windows of the end that faces the camera."""
    rng, light = canvas.rng, canvas.light
    front = pose.heading == "toward"
    s = body.length if front else 0.0
    tall = max(y for _, y in body.profile)

    def patch(
        t0: float, y0: float, t1: float, y1: float, color: Color, brightness: float = light.facing_camera
    ) -> None:
        corners = ((t0, y0), (t1, y0), (t1, y1), (t0, y1))
        canvas.fill([_place(canvas, body, pose, s, y, t) for t, y in corners], color, z=pose.z, light=brightness)

    lamp: Color = (245.0, 240.0, 215.0) if front else (200.0, 30.0, 28.0)
    low = body.label == "car"
    for t in (0.04, 0.8):
        if body.wheels:
            patch(t, 0.02, t + 0.16, 0.36, (22.0, 22.0, 24.0), 0.9)
        patch(t, 0.62 if low else 0.75, t + 0.17, 0.8 if low else 0.95, lamp, 1.1)
    patch(0.36, 0.45, 0.64, 0.57, (215.0, 212.0, 205.0))
    if low and front:
        patch(0.26, 0.6, 0.74, 0.76, DARK)
    elif low:
        patch(0.02, 0.36, 0.98, 0.43, body.trim)
    window = body.end_windows[1 if front else 0]
    if window is not None:
        patch(0.07, window[0], 0.93, window[1], _glass(rng))
        patch(0.25, window[1] + 0.05, 0.75, tall - 0.1, DARK)
        patch(0.3, window[1] + 0.1, 0.7, tall - 0.16, (240.0, 170.0, 60.0), 1.1)
    if body.label == "truck" and not front:
        patch(0.49, 0.95, 0.51, tall, _darker(body.panels[1]))
        patch(0.0, 0.86, 1.0, 0.96, (120.0, 40.0, 36.0))
        patch(0.02, tall - 0.12, 0.98, tall - 0.06, _darker(body.panels[1]))
