"""What stands on the pavements of a synthetic street: trees, lamps, traffic lights and signs, bins and bollards."""

from __future__ import annotations

import math

import numpy as np

from deeplabv3.data.scenery.painting import Canvas, Plane, Point
from deeplabv3.data.scenery.textures import FINE_LEAVES, LEAVES, SMOOTH, Color, any_color, plant_color, varied

_SIGN_COLORS: tuple[Color, ...] = ((205, 205, 200), (35, 80, 160), (190, 40, 40), (225, 180, 50), (30, 110, 70))
_LAMPS: tuple[Color, ...] = ((235, 60, 45), (250, 190, 60), (70, 225, 140))


def draw_tree(canvas: Canvas, x: float, z: float) -> None:
    """A trunk and a crown; both are vegetation, as in the real annotations."""
    rng, camera = canvas.rng, canvas.camera
    trunk, radius = rng.uniform(2.0, 3.2), rng.uniform(1.3, 2.6)
    thickness = rng.uniform(0.12, 0.24)
    face = Plane(camera, x - 1, z, x + 1, z)
    outline = face.points(
        [
            (1 - thickness, 0),
            (1 + thickness, 0),
            (1 + 0.6 * thickness, trunk + radius * 0.6),
            (1 - 0.6 * thickness, trunk + radius * 0.6),
        ]
    )
    canvas.shadow(x - radius, x + radius, z - 0.6, z + 0.6, 0.12)
    bark = (rng.uniform(60, 110), rng.uniform(50, 85), rng.uniform(40, 70))
    if canvas.label("vegetation", outline, SMOOTH):
        canvas.fill(outline, bark, z=z, light=canvas.light.facing_camera)
        shade = face.points([(1, 0), (1 + thickness, 0), (1 + 0.6 * thickness, trunk), (1, trunk)])
        canvas.glaze(shade, (0, 0, 0), 0.25)
    draw_crown(canvas, (x, trunk + radius * 0.75, z), radius, radius * rng.uniform(0.75, 1.25))


def draw_crown(canvas: Canvas, center: tuple[float, float, float], width: float, height: float) -> None:
    """Leaves around a point in metres, half as wide as `width` to each side: lit clumps above, dark ones below."""
    rng, (x, y, z) = canvas.rng, center
    pixels = canvas.camera.focal_pixels / z
    middle = canvas.camera.project(x, y, z)
    radii = (width * pixels, height * pixels)
    outline = _jagged(rng, middle, radii, 34)
    size = radii[1] / canvas.scale
    if not canvas.label("vegetation", outline, LEAVES if size > 24 else FINE_LEAVES):
        return
    color, light = plant_color(rng), canvas.light
    canvas.fill(outline, color, z=z, light=0.8 * light.facing_camera)
    sunny = 0.3 if light.facing_left > light.facing_right else -0.3
    num_clumps = int(np.clip(size, 4, 30))
    for angle, reach, tone in rng.uniform(0, 1, (num_clumps, 3)).tolist():
        turn, distance = angle * 2 * math.pi, 0.72 * math.sqrt(reach)
        dx, dy = distance * math.cos(turn), distance * math.sin(turn)
        brightness = 0.82 - 0.34 * dy + sunny * dx + 0.3 * (tone - 0.5)
        spot = (middle[0] + dx * radii[0], middle[1] + dy * radii[1])
        part = rng.uniform(0.12, 0.26)
        canvas.ellipse(spot, (radii[0] * part, radii[1] * part * 0.7), color, z=z, light=brightness)


def draw_bush(canvas: Canvas, x: float, z: float) -> None:
    """A low round bush on the ground."""
    radius = canvas.rng.uniform(0.5, 1.1)
    canvas.shadow(x - radius, x + radius, z - 0.3, z + 0.3, 0.15)
    draw_crown(canvas, (x, radius * 0.7, z), radius * 1.2, radius * 0.85)


def _jagged(rng: np.random.Generator, center: Point, radii: Point, num_points: int) -> list[Point]:
    """An irregular closed outline around a point, in pixels."""
    angles = np.linspace(0, 2 * math.pi, num_points, endpoint=False)
    lobes = 0.1 * np.cos(angles * 3 + rng.uniform(0, 6)) + 0.07 * np.cos(angles * 5 + rng.uniform(0, 6))
    reach = 0.9 + lobes + 0.08 * rng.standard_normal(num_points)
    xs, ys = center[0] + radii[0] * reach * np.cos(angles), center[1] + radii[1] * reach * np.sin(angles)
    return list(zip(xs.tolist(), ys.tolist(), strict=True))


def _bar(canvas: Canvas, start: Point, end: Point, z: float, thickness: float, color: Color) -> None:
    """A straight piece of a pole between two points (x, y) in metres, labelled; never thinner than two pixels."""
    camera = canvas.camera
    (x0, y0), (x1, y1) = camera.project(*start, z), camera.project(*end, z)
    half = max(thickness * camera.focal_pixels / z, 2.2 * canvas.scale) / 2
    if abs(x1 - x0) > abs(y1 - y0):
        outline = [(x0, y0 - half * 0.7), (x1, y1 - half * 0.7), (x1, y1 + half * 0.5), (x0, y0 + half * 0.5)]
    else:
        outline = [(x0 - half, y0), (x1 - half, y1), (x1 + half - 1, y1), (x0 + half - 1, y0)]
    if not canvas.label("pole", outline):
        return
    painted = [(x + 0.5 if x > (x0 + x1) / 2 else x - 0.5, y) for x, y in outline]
    canvas.fill(painted, color, z=z, light=canvas.light.facing_camera)
    lit = 0 if canvas.light.facing_left > canvas.light.facing_right else 1
    if abs(x1 - x0) <= abs(y1 - y0):
        center = (x0 - 0.5, x1 - 0.5)
        edge = (painted[1 - lit][0], painted[2 + lit][0]) if lit == 0 else (painted[0][0], painted[3][0])
        canvas.glaze([(center[0], y0), (center[1], y1), (edge[1], y1), (edge[0], y0)], (0, 0, 0), 0.28)


def _pole_color(canvas: Canvas) -> Color:
    if canvas.rng.random() < 0.2:
        return any_color(canvas.rng)
    gray = canvas.rng.uniform(40, 175)
    return gray, gray * canvas.rng.uniform(0.96, 1.04), gray * canvas.rng.uniform(0.92, 1.04)


def draw_lamp(canvas: Canvas, x: float, z: float) -> None:
    """A street lamp with an arm over the road, sometimes with a sign on its mast."""
    rng = canvas.rng
    height, color = rng.uniform(5.5, 8.5), _pole_color(canvas)
    arm = -math.copysign(rng.uniform(0.8, 2.0), x)
    canvas.shadow(x - 0.15, x + 0.15, z - 0.15, z + 0.15, 0.12)
    _bar(canvas, (x, 0), (x, height), z, 0.17, color)
    if rng.random() < 0.75:
        _bar(canvas, (x, height), (x + arm, height + 0.25), z, 0.1, color)
        tip = canvas.camera.project(x + arm, height + 0.2, z)
        pixels = canvas.camera.focal_pixels / z
        canvas.ellipse(tip, (0.4 * pixels, 0.12 * pixels), (200, 200, 190), z=z)
    if rng.random() < 0.3:
        draw_sign_plate(canvas, x, z, rng.uniform(2.3, 2.9))


def draw_sign(canvas: Canvas, x: float, z: float) -> None:
    """One or two traffic signs on a thin pole."""
    rng = canvas.rng
    top = rng.uniform(2.4, 3.0)
    canvas.shadow(x - 0.12, x + 0.12, z - 0.12, z + 0.12, 0.12)
    _bar(canvas, (x, 0), (x, top), z, 0.09, _pole_color(canvas))
    if rng.random() < 0.4:
        draw_sign_plate(canvas, x, z, top - 0.85)
    draw_sign_plate(canvas, x, z, top)


def draw_sign_plate(canvas: Canvas, x: float, z: float, y: float) -> None:
    """A round, triangular, square or wide plate centred at height `y`, or the grey back of one."""
    rng, camera = canvas.rng, canvas.camera
    pixels = camera.focal_pixels / z
    radius = max(rng.uniform(0.32, 0.48) * pixels, 4.0 * canvas.scale)
    cx, cy = camera.project(x, y, z)
    kind = int(rng.integers(0, 5))
    if kind == 0:
        shape = [(math.cos(a), math.sin(a)) for a in np.arange(0, 2 * math.pi, math.pi / 8)]
    elif kind == 1:
        shape = [(-1.05, 0.8), (1.05, 0.8), (0.0, -1.0)]
    elif kind == 2:
        shape = [(0.0, -1.1), (1.1, 0.0), (0.0, 1.1), (-1.1, 0.0)]
    else:
        wide = 1.0 if kind == 3 else rng.uniform(1.3, 2.2)
        shape = [(-wide, -0.9), (wide, -0.9), (wide, 0.9), (-wide, 0.9)]
    outline = [(cx + radius * u, cy + radius * v) for u, v in shape]
    if not canvas.label("traffic sign", outline):
        return
    light = canvas.light.facing_camera
    if rng.random() < 0.18:
        canvas.fill(outline, varied(rng, (130, 130, 128), 0.25), z=z, light=light)
        return
    rim, face, mark = (_SIGN_COLORS[int(index)] for index in rng.integers(0, len(_SIGN_COLORS), 3))
    canvas.fill(outline, varied(rng, rim, 0.15), z=z, light=light * 1.1)
    inner = [(cx + radius * u * 0.74, cy + radius * (v * 0.74 + (0.08 if kind == 1 else 0))) for u, v in shape]
    canvas.fill(inner, varied(rng, face, 0.15), z=z, light=light * 1.1)
    for offset in (-0.28, 0.18) if kind >= 3 else (-0.12,):
        bar = [(-0.5, offset), (0.5, offset), (0.5, offset + 0.24), (-0.5, offset + 0.24)]
        canvas.fill([(cx + radius * u, cy + radius * v) for u, v in bar], mark, z=z, light=light)


def draw_traffic_light(canvas: Canvas, x: float, z: float, lit: int) -> None:
    """A mast with one or two dark boxes of three lamps, of which number `lit` shines."""
    rng = canvas.rng
    color, top = _pole_color(canvas), rng.uniform(3.2, 3.8)
    canvas.shadow(x - 0.15, x + 0.15, z - 0.15, z + 0.15, 0.12)
    _bar(canvas, (x, 0), (x, top), z, 0.13, color)
    places = [(x, 2.9)]
    if rng.random() < 0.4:
        reach = -math.copysign(rng.uniform(2.5, 4.0), x)
        _bar(canvas, (x, 5.6), (x + reach, 5.6), z, 0.13, color)
        _bar(canvas, (x, 0), (x, 5.6), z, 0.15, color)
        places.append((x + reach, 5.3))
    for place in places:
        _draw_signal_box(canvas, place, z, lit)


def _draw_signal_box(canvas: Canvas, place: Point, z: float, lit: int) -> None:
    rng, camera = canvas.rng, canvas.camera
    pixels = max(camera.focal_pixels / z, 13 * canvas.scale)
    cx, cy = camera.project(place[0], place[1], z)
    half_width, half_height = 0.2 * pixels, 0.52 * pixels
    box = [
        (cx - half_width, cy - half_height),
        (cx + half_width, cy - half_height),
        (cx + half_width, cy + half_height),
        (cx - half_width, cy + half_height),
    ]
    if not canvas.label("traffic light", box):
        return
    housing = (
        (rng.uniform(70, 130), rng.uniform(80, 120), 50) if rng.random() < 0.15 else varied(rng, (38, 40, 42), 0.4)
    )
    canvas.fill(box, housing, z=z, light=canvas.light.facing_camera)
    for number, lamp in enumerate(_LAMPS):
        center = (cx, cy + (number - 1) * 0.32 * pixels)
        size = 0.12 * pixels
        canvas.ellipse(center, (size, size), lamp, z=z, light=1.0 if number == lit else 0.16)


def draw_clutter(canvas: Canvas, x: float, z: float) -> None:
    """A bin, a post box or a bollard: "static" in the table, which is neither trained nor scored."""
    rng, camera = canvas.rng, canvas.camera
    width, height = rng.uniform(0.12, 0.55), rng.uniform(0.7, 1.3)
    face = Plane(camera, x - width, z, x + width, z)
    canvas.shadow(x - width, x + width, z - 0.1, z + 0.4, 0.2)
    outline = face.quad(0, 0, 2 * width, height)
    if canvas.label("static", outline):
        color = any_color(rng)
        canvas.fill(outline, color, z=z, light=canvas.light.facing_camera)
        canvas.fill(face.quad(0, height - 0.12, 2 * width, height), color, z=z, light=0.6)
        canvas.glaze(face.quad(width, 0, 2 * width, height), (0, 0, 0), 0.2)
