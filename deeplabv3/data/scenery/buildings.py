"""What lines a synthetic street: facades, walls, fences, hedges, and the skyline at its end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deeplabv3.data.scenery.furniture import draw_crown
from deeplabv3.data.scenery.painting import Canvas, Plane
from deeplabv3.data.scenery.textures import (
    BRICK,
    FINE_LEAVES,
    LEAVES,
    PLASTER,
    STONE,
    Color,
    any_color,
    mineral_color,
    muted,
    plant_color,
    varied,
)

DEPTH_METERS = 11.0
"""How far a house reaches back from the street."""


@dataclass(frozen=True)
class Stretch:
    """A piece of one side of the street: the line at `x` from `z0` to `z1`, in metres."""

    x: float
    z0: float
    z1: float

    @property
    def outwards(self) -> float:
        """Direction away from the street, -1 or 1."""
        return -1.0 if self.x < 0 else 1.0


@dataclass(frozen=True)
class _FacadeStyle:
    """What all faces of one building share."""

    plaster: Color
    trim: Color
    glass: Color
    floor_meters: float
    bay_meters: float
    window_width: float
    window_height: float
    shop: Color | None
    balconies: bool


def draw_building(canvas: Canvas, stretch: Stretch, height: float) -> None:
    """A house: its face along the street, its near end, windows, doors or shops, and a roof."""
    rng, camera, light = canvas.rng, canvas.camera, canvas.light
    color = mineral_color(rng, 0.3, 0.9) if rng.random() < 0.55 else muted(any_color(rng))
    style = _FacadeStyle(
        plaster=color,
        trim=varied(rng, (215.0, 210.0, 200.0) if rng.random() < 0.5 else color, 0.3),
        glass=varied(rng, (70.0, 84.0, 98.0), 0.6),
        floor_meters=rng.uniform(2.9, 3.7),
        bay_meters=rng.uniform(2.0, 3.6),
        window_width=rng.uniform(0.4, 0.72),
        window_height=rng.uniform(0.45, 0.68),
        shop=any_color(rng) if rng.random() < 0.5 else None,
        balconies=rng.random() < 0.2,
    )
    material = BRICK if rng.random() < 0.45 else PLASTER
    floors = max(1, round(height / style.floor_meters))
    height = floors * style.floor_meters + 0.5
    x, z0, z1, out = stretch.x, stretch.z0, stretch.z1, stretch.outwards
    end = Plane(camera, x, z0, x + out * DEPTH_METERS, z0)
    side = Plane(camera, x, z0, x, z1)
    rise = float(rng.uniform(2.0, 4.5)) if rng.random() < 0.6 else 0.0
    if rise:
        _draw_roof(canvas, stretch, height, rise)
    for face, brightness in ((end, light.facing_camera), (side, light.side(x))):
        outline = face.quad(0, 0, face.length, height)
        if rise and face is end:
            outline.insert(3, face.at(face.length / 2, height + rise))
        if not canvas.label("building", outline, material):
            continue
        canvas.fill(outline, color, z=(face.z0 + face.z1) / 2, light=brightness)
        _draw_windows(canvas, face, style, floors, brightness)
        canvas.fill(face.quad(0, height - 0.4, face.length, height), style.trim, z=face.z1, light=brightness * 0.95)
        # Daylight reaches the foot of a street less than its roofs.
        for top in (2.2, 5.5):
            canvas.glaze(face.quad(0, 0, face.length, top), (10, 10, 20), 0.09)


def _draw_roof(canvas: Canvas, stretch: Stretch, height: float, rise: float) -> None:
    """The slope above the face along the street, with chimneys; the faces, drawn later, cover what they hide."""
    rng, camera = canvas.rng, canvas.camera
    x, back = stretch.x, stretch.x + stretch.outwards * DEPTH_METERS / 2
    color = (rng.uniform(70, 170), rng.uniform(55, 95), rng.uniform(45, 90))
    eaves = Plane(camera, x, stretch.z0, x, stretch.z1)
    ridge = Plane(camera, back, stretch.z0, back, stretch.z1)
    middle = (stretch.z0 + stretch.z1) / 2
    for position in rng.uniform(0.1, 0.85, int(rng.integers(0, 3))):
        s = float(position) * ridge.length
        chimney = ridge.quad(s, height, s + 0.9, height + rise + 1.0)
        if canvas.label("building", chimney, BRICK):
            canvas.fill(chimney, (120, 80, 66), z=middle, light=canvas.light.side(x))
    top = height + rise
    outline = [eaves.at(0, height), ridge.at(0, top), ridge.at(ridge.length, top), eaves.at(eaves.length, height)]
    if canvas.label("building", outline, BRICK):
        canvas.fill(outline, color, z=middle, light=canvas.light.facing_up * 0.9)


def _draw_windows(canvas: Canvas, face: Plane, style: _FacadeStyle, floors: int, brightness: float) -> None:
    """Windows in a grid of floors and bays; the ground floor gets doors or shop windows."""
    rng = canvas.rng
    bays = max(1, int(face.length / style.bay_meters))
    bay = face.length / bays
    sky = canvas.light.haze
    for column in range(bays):
        s0 = (column + (1 - style.window_width) / 2) * bay
        s1 = s0 + style.window_width * bay
        left, right = face.at(s0, 0)[0], face.at(s1, 0)[0]
        if abs(right - left) < 0.8 or max(left, right) < 0 or min(left, right) > canvas.camera.width:
            continue
        z = face.z0 + (face.z1 - face.z0) * (s0 / face.length)
        tones = rng.uniform(0.55, 1.3, floors)
        mirrors = rng.random(floors)
        for floor in range(floors):
            y0 = floor * style.floor_meters + 0.25 * style.floor_meters
            y1 = y0 + style.window_height * style.floor_meters
            if floor == 0 and (style.shop is not None or column % 4 == 1):
                _draw_entrance(canvas, face, style, (column * bay, s0, s1, bay), brightness)
                continue
            tone = float(tones[floor])
            glass = style.glass if mirrors[floor] < 0.75 else (sky[0] * 0.7, sky[1] * 0.72, sky[2] * 0.75)
            if abs(right - left) > 3:
                canvas.fill(face.quad(s0 - 0.12, y0 - 0.12, s1 + 0.12, y1 + 0.12), style.trim, z=z, light=brightness)
            canvas.fill(face.quad(s0, y0, s1, y1), glass, z=z, light=brightness * tone)
            if abs(right - left) > 6:
                middle = (s0 + s1) / 2
                canvas.line([face.at(middle, y0), face.at(middle, y1)], style.trim, 0.8, z=z, light=brightness)
                canvas.fill(face.quad(s0 - 0.2, y0 - 0.3, s1 + 0.2, y0 - 0.1), style.trim, z=z, light=brightness * 1.1)
            if style.balconies and floor > 0 and column % 2 == 0:
                rail = face.quad(s0 - 0.3, y0 - 0.35, s1 + 0.3, y0 + 0.55)
                canvas.fill(rail, style.trim, z=z, light=brightness * 0.75)


def _draw_entrance(
    canvas: Canvas, face: Plane, style: _FacadeStyle, bay: tuple[float, float, float, float], brightness: float
) -> None:
    """A shop window with its sign, or a door; `bay` is its start, the window's start and end, and its length."""
    start, s0, s1, length = bay
    z = face.z0 + (face.z1 - face.z0) * (s0 / face.length)
    if style.shop is None:
        s1 = min(s1, s0 + 1.3)
        canvas.fill(face.quad(s0 - 0.1, 0, s1 + 0.1, 2.4), style.trim, z=z, light=brightness * 0.9)
        canvas.fill(face.quad(s0 + 0.1, 0, s1 - 0.1, 2.2), varied(canvas.rng, (95, 62, 45), 0.5), z=z, light=brightness)
        return
    margin = 0.06 * length
    canvas.fill(face.quad(start + margin, 0.4, start + length - margin, 2.4), style.glass, z=z, light=brightness * 0.8)
    lit = varied(canvas.rng, (190, 170, 130), 0.4)
    canvas.fill(face.quad(start + 0.25 * length, 0.6, start + 0.7 * length, 1.5), lit, z=z, light=brightness * 0.7)
    canvas.fill(face.quad(start, 2.5, start + length, 3.0), style.shop, z=z, light=brightness)


def draw_wall(canvas: Canvas, stretch: Stretch, height: float) -> None:
    """A free-standing wall of stone, brick or plaster without windows, with a coping on top."""
    rng, camera = canvas.rng, canvas.camera
    color = mineral_color(rng, 0.3, 0.85) if rng.random() < 0.75 else any_color(rng)
    side = Plane(camera, stretch.x, stretch.z0, stretch.x, stretch.z1)
    end = Plane(camera, stretch.x, stretch.z0, stretch.x + stretch.outwards * 0.35, stretch.z0)
    kind = rng.random()
    material = STONE if kind < 0.6 else (BRICK if kind < 0.8 else PLASTER)
    for face, brightness in ((end, canvas.light.facing_camera), (side, canvas.light.side(stretch.x))):
        outline = face.quad(0, 0, face.length, height)
        if not canvas.label("wall", outline, material):
            continue
        canvas.fill(outline, color, z=(face.z0 + face.z1) / 2, light=brightness)
        for s in np.arange(2.5, face.length, 2.5).tolist():
            canvas.fill(face.quad(s, 0, s + 0.12, height), color, z=face.z0 + s, light=brightness * 0.72)
        canvas.glaze(face.quad(0, 0, face.length, height * 0.3), (20, 22, 10), 0.14)
        canvas.fill(face.quad(0, height - 0.14, face.length, height), color, z=face.z1, light=brightness * 1.22)
        canvas.glaze(face.quad(0, height - 0.24, face.length, height - 0.14), (0, 0, 0), 0.3)


def draw_fence(canvas: Canvas, stretch: Stretch, height: float) -> None:
    """Posts, rails and thin bars or boards; what stands behind shines through."""
    rng, camera, light = canvas.rng, canvas.camera, canvas.light
    face = Plane(camera, stretch.x, stretch.z0, stretch.x, stretch.z1)
    if not canvas.label("fence", face.quad(0, 0, face.length, height), None):
        return
    color = any_color(rng) if rng.random() < 0.6 else varied(rng, (60, 62, 60), 0.5)
    boards = rng.random() < 0.3
    spacing = 0.28 if boards else rng.uniform(0.22, 0.36)
    brightness = light.side(stretch.x)
    s = 0.0
    while s < face.length:
        z = face.z0 + s
        pixels = camera.focal_pixels / z
        x = face.at(s, 0)[0]
        # Bars closer than three pixels would melt into a surface, so distant ones stand wider apart.
        across = abs(face.at(min(s + 0.5, face.length), 0)[0] - x) * 2 + 1e-3
        step = max(spacing, 2.6 * canvas.scale / across)
        if -20 < x < camera.width + 20:
            if boards:
                canvas.fill(face.quad(s, 0.08, s + step * 0.62, height * 0.97), color, z=z, light=brightness)
            else:
                width = max(0.035 * pixels, 0.75 * canvas.scale)
                canvas.line(face.points([(s, 0), (s, height)]), color, width, z=z, light=brightness)
        s += step
    for y in (0.12 * height, 0.9 * height):
        thick = max(0.06, 0.7 * canvas.scale * face.z0 / camera.focal_pixels)
        canvas.fill(face.quad(0, y, face.length, y + thick), color, z=face.z0, light=brightness * 0.9)
    for s in np.arange(0, face.length, 2.5).tolist():
        post = face.quad(s, 0, min(s + 0.14, face.length), height)
        canvas.fill(post, color, z=face.z0 + s, light=brightness * 0.8)


def draw_hedge(canvas: Canvas, stretch: Stretch, height: float) -> None:
    """A row of bushes: uneven on top, full of dark and light leaves."""
    rng = canvas.rng
    color = plant_color(rng)
    face = Plane(canvas.camera, stretch.x, stretch.z0, stretch.x, stretch.z1)
    steps = np.linspace(0, face.length, max(5, int(face.length / 0.6)))
    tops = height * (1 + 0.16 * rng.standard_normal(len(steps)))
    outline = face.points([(0, 0), *zip(steps.tolist(), tops.tolist(), strict=True), (face.length, 0)])
    material = LEAVES if stretch.z0 < 22 else FINE_LEAVES
    if not canvas.label("vegetation", outline, material):
        return
    brightness = canvas.light.side(stretch.x)
    canvas.fill(outline, color, z=(stretch.z0 + stretch.z1) / 2, light=brightness)
    for part in (0.35, 0.6):
        canvas.glaze(face.quad(0, 0, face.length, height * part), (5, 14, 5), 0.22)
    for s, y in zip(steps.tolist(), tops.tolist(), strict=True):
        center = face.at(s, y * rng.uniform(0.5, 0.85))
        radius = 0.3 * canvas.camera.focal_pixels / (face.z0 + s)
        if radius > 1 and rng.random() < 0.6:
            canvas.ellipse(center, (radius * 0.8, radius * 0.5), color, z=face.z0 + s, light=brightness * 1.25)


def draw_skyline(canvas: Canvas, z: float) -> None:
    """Houses and trees that close the street at its far end, `z` metres away."""
    rng, camera = canvas.rng, canvas.camera
    reach = z * camera.width / camera.focal_pixels
    x = -reach
    while x < reach:
        width = rng.uniform(7, 20)
        if rng.random() < 0.5:
            face = Plane(camera, x, z, x + width, z)
            floors = int(rng.integers(2, 6))
            plaster = mineral_color(rng, 0.35, 0.85)
            outline = face.quad(0, 0, width, floors * 3.2)
            if canvas.label("building", outline, PLASTER):
                canvas.fill(outline, plaster, z=z, light=canvas.light.facing_camera)
                for floor in range(floors):
                    for s in np.arange(1.0, width - 1.5, 3.0).tolist():
                        pane = face.quad(s, floor * 3.2 + 0.9, s + 1.6, floor * 3.2 + 2.4)
                        canvas.fill(pane, (80, 88, 98), z=z, light=rng.uniform(0.6, 1.1))
        else:
            draw_crown(canvas, (x + width / 2, 3.0, z), width * 0.5, rng.uniform(3, 6))
        x += width * rng.uniform(0.55, 1.0)
