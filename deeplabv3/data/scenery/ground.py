"""The street itself: its measures, camera and light, and everything flat: sky, road, pavements, grass, markings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from deeplabv3.data.scenery.painting import Camera, Canvas, Light, Point
from deeplabv3.data.scenery.textures import ASPHALT, GRASS, PAVING, SMOOTH, Color, mineral_color, plant_color, varied

REACH_METERS = 90.0
"""How far the street is seen; houses and trees close it there."""


@dataclass(frozen=True)
class Street:
    """Measures of one street in metres; the camera drives at x = 0.

    Attributes:
        canvas: What it is drawn on.
        kerbs: Left and right edge of the road.
        pavements: Outer edges of the pavements.
        borders: Where houses, walls and fences stand.
        strips: Whether grass lies between pavement and border, left and right.
        track: Middle of a rail track in the road, or None.
        crossing: Near and far edge of a side street, or None.
    """

    canvas: Canvas
    kerbs: tuple[float, float]
    pavements: tuple[float, float]
    borders: tuple[float, float]
    strips: tuple[bool, bool]
    track: float | None
    crossing: tuple[float, float] | None

    def blocks(self) -> list[tuple[float, float]]:
        """Near and far end of the pieces that the side street cuts the street into."""
        start = self.canvas.camera.nearest_meters * 0.8
        if self.crossing is None:
            return [(start, REACH_METERS)]
        return [(z0, z1) for z0, z1 in ((start, self.crossing[0]), (self.crossing[1], REACH_METERS)) if z1 > z0]

    def is_side_street(self, z0: float, z1: float) -> bool:
        """Whether the side street meets the stretch from z0 to z1."""
        return self.crossing is not None and z0 < self.crossing[1] and z1 > self.crossing[0]


def make_camera(rng: np.random.Generator, height: int, width: int) -> Camera:
    """A camera as behind a windshield: its focal length, height and tilt vary a little."""
    return Camera(
        height=height,
        width=width,
        focal_pixels=height * rng.uniform(1.4, 1.9),
        horizon_pixels=height * rng.uniform(0.4, 0.5),
        center_pixels=width * (0.5 + rng.uniform(-0.12, 0.12)),
        eye_meters=rng.uniform(1.35, 1.9),
    )


def make_light(rng: np.random.Generator) -> Light:
    """Sun from the left, the right or behind clouds; haze between light and strong."""
    sun = rng.uniform(-0.28, 0.28)
    gray = rng.uniform(150, 225)
    return Light(
        facing_right=0.88 - sun,
        facing_left=0.88 + sun,
        facing_camera=0.86 + rng.uniform(-0.12, 0.16),
        facing_up=1.0 + rng.uniform(-0.04, 0.1),
        haze=(gray * rng.uniform(0.94, 1.04), gray, gray * rng.uniform(0.98, 1.12)),
        haze_meters=rng.uniform(90, 380),
    )


def lay_out_street(canvas: Canvas) -> Street:
    """Draw the measures of a street."""
    rng = canvas.rng
    track = -rng.uniform(3.2, 3.8) if rng.random() < 0.45 else None
    left = -rng.uniform(5.4, 7.6) if track is not None else -rng.uniform(4.2, 7.4)
    right = rng.uniform(1.9, 4.6)
    pavements = (left - rng.uniform(1.8, 3.8), right + rng.uniform(1.8, 3.8))
    strips = (rng.random() < 0.5, rng.random() < 0.5)
    outer = [edge + side * (rng.uniform(1.0, 4.0) if strip else 0.0)
             for edge, side, strip in zip(pavements, (-1, 1), strips, strict=True)]  # fmt: skip
    start = rng.uniform(11, 30)
    crossing = (start, start + rng.uniform(6, 8.5)) if rng.random() < 0.6 else None
    return Street(canvas, (left, right), pavements, (outer[0], outer[1]), strips, track, crossing)


def paint_sky(canvas: Canvas) -> None:
    """A gradient from the zenith to the haze at the horizon, and clouds."""
    rng, camera = canvas.rng, canvas.camera
    bottom = camera.project(0, 0, REACH_METERS + 10)[1] + 1  # down to where the ground begins
    canvas.label("sky", [(-1, -1), (camera.width, -1), (camera.width, bottom), (-1, bottom)])
    haze = canvas.light.haze
    blue = rng.uniform(0, 1)
    zenith = (haze[0] * (1 - 0.5 * blue), haze[1] * (1 - 0.28 * blue), min(haze[2] * (1 + 0.02 * blue), 250))
    steps = 40
    for step in range(steps):
        part = (step / steps) ** 1.5
        color = (zenith[0] + (haze[0] - zenith[0]) * part, zenith[1] + (haze[1] - zenith[1]) * part,
                 zenith[2] + (haze[2] - zenith[2]) * part)  # fmt: skip
        y = bottom * step / steps
        canvas.fill([(-1, y), (camera.width, y), (camera.width, bottom), (-1, bottom)], color, z=0)
    if rng.random() < 0.75:
        canvas.clouds(bottom, float(rng.uniform(0.3, 0.95)))


def paint_ground(street: Street) -> None:
    """Grass, pavements, road, side street and track, with kerbs and markings."""
    canvas, rng = street.canvas, street.canvas.rng
    road, slabs, grass = mineral_color(rng, 0.28, 0.56), mineral_color(rng, 0.38, 0.72), _lawn_color(rng)
    _strip(canvas, "terrain", -400, 400, grass, GRASS)
    for side in (0, 1):
        kerb, edge, border = street.kerbs[side], street.pavements[side], street.borders[side]
        out = -1 if side == 0 else 1
        _strip(canvas, "sidewalk", kerb, border + out * 0.1 if not street.strips[side] else edge, slabs, PAVING)
        if rng.random() < 0.3:  # grass between kerb and pavement
            _strip(canvas, "terrain", kerb + out * 0.15, kerb + out * rng.uniform(0.7, 1.3), grass, GRASS)
    left, right = street.kerbs
    if street.crossing is not None:
        near, far = street.crossing
        for label, margin, color, material in (("sidewalk", 2.2, slabs, PAVING), ("road", 0.0, road, ASPHALT)):
            _strip(canvas, label, -70, 70, color, material, near - margin, far + margin)
    _strip(canvas, "road", left, right, road, ASPHALT)
    if street.track is not None:
        _paint_track(street, road)
    _paint_markings(street, road)
    for z0, z1 in street.blocks():
        for side, edge in ((-1, left), (1, right)):
            _kerbstone(canvas, edge, side, z0, z1, slabs)
    _cast_shadows(street)


def _cast_shadows(street: Street) -> None:
    """Darken the ground beside the houses that stand between it and the sun."""
    canvas, light = street.canvas, street.canvas.light
    strength = light.facing_left - light.facing_right
    if abs(strength) < 0.16:
        return
    border, toward = (street.borders[0], 1) if strength > 0 else (street.borders[1], -1)
    reach = canvas.rng.uniform(2.5, 7.0)
    for z0, z1 in street.blocks():
        canvas.glaze(_ground(canvas, border - 12 * toward, border + reach * toward, z0, z1), (8, 10, 26), 0.34)


def _lawn_color(rng: np.random.Generator) -> Color:
    return plant_color(rng) if rng.random() < 0.7 else mineral_color(rng, 0.35, 0.6)


def _ground(canvas: Canvas, x0: float, x1: float, z0: float, z1: float) -> list[Point]:
    """Pixels of a rectangle of the ground, cut off a little before the camera."""
    z0 = max(z0, canvas.camera.nearest_meters * 0.8)
    z1 = max(z1, z0 + 1e-3)
    place = canvas.camera.project
    return [place(x0, 0, z0), place(x1, 0, z0), place(x1, 0, z1), place(x0, 0, z1)]


def _strip(canvas: Canvas, label: str, x0: float, x1: float, color: Color, material: int,
           z0: float = 0.0, z1: float = REACH_METERS + 10) -> None:  # fmt: skip
    """A labelled rectangle of the ground, painted in bands that fade into the haze."""
    if not canvas.label(label, _ground(canvas, x0, x1, z0, z1), material):
        return
    near = max(z0, canvas.camera.nearest_meters * 0.8)
    bands = near * (z1 / near) ** np.linspace(0, 1, 9)
    for start, end in zip(bands[:-1].tolist(), bands[1:].tolist(), strict=True):
        middle = math.sqrt(start * end)
        canvas.fill(_ground(canvas, x0, x1, start, end), color, z=middle, light=0.9 * canvas.light.facing_up)


def _kerbstone(canvas: Canvas, edge: float, side: int, z0: float, z1: float, slabs: Color) -> None:
    top = canvas.light.facing_up
    canvas.fill(_ground(canvas, edge - 0.12 * side, edge, z0, z1), slabs, z=z0, light=top * 0.55)
    canvas.fill(_ground(canvas, edge, edge + 0.2 * side, z0, z1), slabs, z=z0, light=top * 1.08)


def _paint_track(street: Street, road: Color) -> None:
    """Two rails in a bed of grass, gravel or asphalt."""
    canvas, rng, middle = street.canvas, street.canvas.rng, street.track or 0.0
    bed, material = (_lawn_color(rng), GRASS) if rng.random() < 0.5 else (varied(rng, road, 0.25), PAVING)
    _strip(canvas, "rail track", middle - 1.25, middle + 1.25, bed, material)
    for rail in (middle - 0.72, middle + 0.72):
        canvas.fill(_ground(canvas, rail - 0.16, rail + 0.16, 0, 70), (70, 66, 64), z=12)
        canvas.fill(_ground(canvas, rail - 0.05, rail + 0.05, 0, 70), (165, 163, 160), z=12)


def _paint_markings(street: Street, road: Color) -> None:
    """Lane lines, edge lines, a zebra crossing before the side street, patches and manholes."""
    canvas, rng = street.canvas, street.canvas.rng
    left, right = street.kerbs
    paint = varied(rng, (222, 220, 212), 0.12) if rng.random() < 0.85 else varied(rng, (215, 180, 80), 0.12)
    for _ in range(int(rng.integers(1, 5))):
        x, z = rng.uniform(left, right), rng.uniform(4, 30)
        patch = _ground(canvas, max(x - rng.uniform(0.4, 1.5), left), min(x + rng.uniform(0.4, 1.5), right), z,
                        z + rng.uniform(1, 6))  # fmt: skip
        canvas.glaze(patch, (15, 15, 18) if rng.random() < 0.7 else (200, 198, 190), rng.uniform(0.08, 0.28))
    lines = [-1.75]
    if right > 3.4:
        lines.append(1.7)
    offset, dashed = rng.uniform(0, 6), rng.random() < 0.75
    for x in lines if street.track is None else lines[1:]:
        for z in np.arange(2 + offset, 60, 6).tolist() if dashed else [2.0]:
            end = z + 3 if dashed else 60.0
            if not street.is_side_street(z, end):
                canvas.fill(_ground(canvas, x - 0.07, x + 0.07, z, end), paint, z=z)
    if rng.random() < 0.4:
        canvas.fill(_ground(canvas, right - 0.35, right - 0.22, 0, 60), paint, z=10)
    if street.crossing is None or rng.random() < 0.2:
        return
    near = street.crossing[0] - 3.6
    for x in np.arange(left + 0.4, right - 0.5, 1.0).tolist():
        canvas.fill(_ground(canvas, x, x + 0.5, near, near + 2.6), paint, z=near)
    canvas.fill(_ground(canvas, -1.6, right - 0.3, near - 1.2, near - 0.8), paint, z=near)


def paint_bonnet(canvas: Canvas) -> None:
    """The front of the camera's own car, which the table calls ego vehicle."""
    rng, camera = canvas.rng, canvas.camera
    top = camera.height * rng.uniform(0.91, 0.96)
    columns = np.linspace(-0.02, 1.02, 15)
    arch = top + 0.07 * camera.height * (2 * columns - 1) ** 2
    edge = [(float(a * camera.width), float(b)) for a, b in zip(columns, arch, strict=True)]
    color = varied(rng, (60, 62, 68), 0.7)
    outline = [*edge, (camera.width + 2.0, camera.height + 2.0), (-2.0, camera.height + 2.0)]
    if canvas.label("ego vehicle", outline, SMOOTH):
        canvas.fill(outline, color, z=0, light=1.2)
        for part in (0.25, 0.5, 0.75):
            lower = [(x, y + part * (camera.height - top)) for x, y in edge]
            canvas.glaze([*lower, *outline[-2:]], (0, 0, 0), 0.16)
