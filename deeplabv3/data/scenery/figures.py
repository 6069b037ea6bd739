"""People, riders, bicycles and motorcycles of a synthetic street, as flat figures that face the camera."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deeplabv3.data.scenery.painting import Canvas, Point, envelope
from deeplabv3.data.scenery.textures import CLOTH, SMOOTH, Color, any_color, varied

Part = tuple[list[Point], Color]

_SKINS: tuple[Color, ...] = ((232, 190, 160), (205, 150, 115), (150, 100, 70), (95, 62, 45))


@dataclass(frozen=True)
class Frame:
    """Where a figure stands: its own metres `u` to the right and `y` up, `turn` squeezing `u` as seen at an angle.

    Attributes:
        canvas: What it is drawn on.
        x: Middle of the figure in metres.
        z: Distance in metres.
        turn: 1 where it is seen from the side, near 0 from the front; negative faces left.
        size: Factor on all its measures.
    """

    canvas: Canvas
    x: float
    z: float
    turn: float = 1.0
    size: float = 1.0

    def at(self, u: float, y: float) -> Point:
        """Pixel of a point of the figure."""
        return self.canvas.camera.project(self.x + u * self.turn * self.size, y * self.size, self.z)

    @property
    def pixels(self) -> float:
        """Pixels of one metre of the figure."""
        return self.size * self.canvas.camera.focal_pixels / self.z

    def limb(self, start: Point, end: Point, width: float, end_width: float | None = None) -> list[Point]:
        """A tapering limb between two points (u, y), `width` metres thick whatever the turn."""
        (x0, y0), (x1, y1) = self.at(*start), self.at(*end)
        length = max(math.hypot(x1 - x0, y1 - y0), 1e-3)
        half, end_half = width * self.pixels / 2, (end_width or width) * self.pixels / 2
        nx, ny = (y1 - y0) / length, -(x1 - x0) / length
        return [(x0 + nx * half, y0 + ny * half), (x1 + nx * end_half, y1 + ny * end_half),
                (x1 - nx * end_half, y1 - ny * end_half), (x0 - nx * half, y0 - ny * half)]  # fmt: skip

    def disc(self, center: Point, radius: float, turned: bool = False) -> list[Point]:
        """A circle around (u, y); `turned` circles, like wheels, become narrow ellipses as the figure turns."""
        x, y = self.at(*center)
        across = max(abs(self.turn), 0.16) if turned else 1.0
        reach = radius * self.pixels
        angles = np.arange(0, 2 * math.pi, math.pi / 7).tolist()
        return [(x + reach * across * math.cos(a), y + reach * math.sin(a)) for a in angles]

    def draw(self, label: str, parts: Sequence[Part], material: int | None, hull: Sequence[list[Point]] = ()) -> bool:
        """Label the outline of all parts, and of `hull` where given instead, then paint them in order."""
        outline = envelope([*(hull or [points for points, _ in parts])], axis=1)
        if not self.canvas.label(label, outline, material):
            return False
        for points, color in parts:
            self.canvas.fill(points, color, z=self.z, light=self.canvas.light.facing_camera)
        return True


def draw_person(canvas: Canvas, x: float, z: float) -> None:
    """Somebody who stands or walks: head, hair, clothes, legs, sometimes a bag or a long coat."""
    rng = canvas.rng
    size = rng.uniform(1.5, 1.92) if rng.random() < 0.88 else rng.uniform(1.05, 1.4)
    frame = Frame(canvas, x, z, 1.0, size)
    coat, trousers, skin = any_color(rng), any_color(rng), _SKINS[int(rng.integers(0, 4))]
    stride, swing = rng.uniform(-0.14, 0.14), rng.uniform(-0.1, 0.1)
    broad = rng.uniform(0.105, 0.14)
    hem = 0.3 if rng.random() < 0.25 else 0.48
    shoe: Color = (35, 32, 32)
    legs = [(-0.045, stride), (0.045, -stride)]
    parts: list[Part] = []
    for hip, foot in legs:
        knee = (hip + 0.55 * foot, 0.27)
        ankle = hip + foot
        parts.append((frame.limb((hip, 0.52), knee, 0.1, 0.075), trousers))
        parts.append((frame.limb(knee, (ankle, 0.02), 0.075, 0.05), varied(rng, trousers, 0.15)))
        parts.append((frame.limb((ankle - 0.035, 0.02), (ankle + 0.05, 0.015), 0.045), shoe))
    far_arm, near_arm = (broad, swing), (-broad, -swing)
    for side, reach in (far_arm, near_arm):
        hand = (side * 1.15 + reach, 0.46)
        parts += [
            (frame.limb((side, 0.81), hand, 0.06, 0.045), varied(rng, coat, 0.2)),
            (frame.disc(hand, 0.025), skin),
        ]
    torso = [frame.at(u, y) for u, y in ((-broad, 0.83), (-0.05, 0.865), (0.05, 0.865), (broad, 0.83),
             (broad * 0.82, hem), (-broad * 0.82, hem))]  # fmt: skip
    parts.append((torso, coat))
    parts += [(frame.limb((0, 0.84), (0, 0.9), 0.05), skin), (frame.disc((0, 0.93), 0.062), skin)]
    hair = [frame.at(0.066 * math.cos(a), 0.935 + 0.066 * math.sin(a)) for a in np.linspace(0, math.pi, 7)]
    parts.append((hair, varied(rng, (70, 52, 40), 0.7)))
    if rng.random() < 0.3:
        bag = math.copysign(broad, swing)
        parts.append(([frame.at(bag + u, y) for u, y in ((-0.06, 0.4), (0.06, 0.4), (0.06, 0.58), (-0.06, 0.58))],
                      any_color(rng)))  # fmt: skip
    canvas.shadow(x - 0.22, x + 0.22, z - 0.15, z + 0.15, 0.2)
    if frame.draw("person", parts, CLOTH):
        _shade(canvas, [torso], frame)


def _shade(canvas: Canvas, shapes: Sequence[list[Point]], frame: Frame) -> None:
    """Darken the half of each shape that faces away from the sun."""
    sun = 1 if canvas.light.facing_right > canvas.light.facing_left else -1
    middle = frame.at(0, 0)[0]
    for shape in shapes:
        half = [(max(x * -sun, middle * -sun) * -sun, y) for x, y in shape]
        canvas.glaze(half, (0, 0, 10), 0.22)


def draw_bicycle(canvas: Canvas, x: float, z: float, turn: float, rider: bool) -> None:
    """A bicycle, `turn` as in `Frame`, and somebody on it where `rider`."""
    rng = canvas.rng
    frame = Frame(canvas, x, z, turn, rng.uniform(0.95, 1.08))
    paint, tire, metal = any_color(rng), (28.0, 28.0, 30.0), varied(rng, (120, 122, 124), 0.3)
    rear, front, saddle, bars, crank = (-0.52, 0.34), (0.54, 0.34), (-0.2, 0.95), (0.4, 1.02), (-0.03, 0.3)
    tube = max(0.045, 1.1 * canvas.scale / frame.pixels)
    parts: list[Part] = [
        (frame.limb(a, b, tube), paint)
        for a, b in (((rear), crank), (crank, saddle), (crank, (0.36, 0.82)), ((-0.16, 0.78), (0.36, 0.82)),
                     (rear, (-0.16, 0.8)), (front, bars))
    ]  # fmt: skip
    handle = max(abs(turn) * 0.1, 0.27 * (1 - abs(turn))) / max(abs(turn), 0.05)
    parts += [(frame.limb((-0.32, 0.97), (-0.08, 0.96), 0.07), tire),
              (frame.limb((bars[0] - handle, 1.04), (bars[0] + handle, 1.04), 0.05), metal)]  # fmt: skip
    if rng.random() < 0.4:
        parts.append((frame.limb((-0.75, 0.74), (-0.3, 0.74), 0.06), metal))
    canvas.shadow(x - 0.6 * abs(turn) - 0.1, x + 0.6 * abs(turn) + 0.1, z - 0.12, z + 0.12, 0.2)
    wheels = [frame.disc(center, 0.34, turned=True) for center in (rear, front)]
    if not frame.draw("bicycle", [], None, [*wheels, *(points for points, _ in parts)]):
        return
    light = canvas.light.facing_camera
    for center, wheel in zip((rear, front), wheels, strict=True):
        spokes = frame.disc(center, 0.3, turned=True)
        canvas.glaze(spokes, metal, 0.16)
        canvas.line([*wheel, wheel[0]], tire, max(0.055 * frame.pixels, 1.0 * canvas.scale), z=z, light=light)
        hub = frame.at(*center)
        for a in (0.3, 1.35, 2.4):
            along = (0.3 * frame.pixels * max(abs(turn), 0.16) * math.cos(a), 0.3 * frame.pixels * math.sin(a))
            canvas.line(
                [(hub[0] - along[0], hub[1] - along[1]), (hub[0] + along[0], hub[1] + along[1])], metal, 0.5, z=z
            )
    for points, color in parts:
        canvas.fill(points, color, z=z, light=light)
    if rider:
        _draw_rider(frame, saddle=(-0.22, 1.0), grip=(0.36, 1.05), pedals=((0.1, 0.2), (-0.12, 0.42)), helmet=0.4)


def draw_motorcycle(canvas: Canvas, x: float, z: float, turn: float, rider: bool) -> None:
    """A motorcycle: fat tyres, a dark engine, a tank and a seat; and somebody on it where `rider`."""
    rng = canvas.rng
    frame = Frame(canvas, x, z, turn, rng.uniform(0.98, 1.12))
    paint, dark, metal = any_color(rng), varied(rng, (40, 40, 43), 0.3), varied(rng, (135, 136, 140), 0.25)
    rear, front = (-0.68, 0.32), (0.7, 0.32)
    thick = 0.18 + 0.2 * (1 - abs(turn))
    wheels = [frame.disc(center, 0.33, turned=True) for center in (rear, front)]
    rims = [frame.disc(center, 0.19, turned=True) for center in (rear, front)]
    bars = 0.34 * (1 - abs(turn)) / max(abs(turn), 0.05) + 0.08

    def shape(*outline: Point) -> list[Point]:
        return [frame.at(u, y) for u, y in outline]

    parts: list[Part] = [*((wheel, (24.0, 24.0, 26.0)) for wheel in wheels), *((rim, metal) for rim in rims)]
    parts += [
        (frame.limb(front, (0.42, 0.98), 0.08), metal),
        (frame.limb((-0.1, 0.42), (-0.75, 0.4), 0.1), metal),
        (shape((-0.3, 0.3), (0.36, 0.28), (0.44, 0.62), (-0.2, 0.66)), dark),
        (shape((-0.85, 0.74), (-0.1, 0.62), (0.1, 0.76), (-0.1, 0.86), (-0.8, 0.86)), dark),
        (frame.limb((-0.05, 0.74), (0.36, 0.84), thick + 0.12, thick), paint),
        (frame.limb((-0.85, 0.74), (-0.5, 0.68), thick * 0.7, thick), paint),
        (frame.limb((0.42 - bars, 1.04), (0.42 + bars, 1.04), 0.06), dark),
    ]
    if rng.random() < 0.5:
        parts.append((frame.limb((0.5, 0.7), (0.4, 1.18), thick + 0.06, thick), paint))
    lamp: Color = (240, 235, 210) if rng.random() < 0.5 else (190, 30, 28)
    parts.append((frame.disc((0.56 if turn > 0 else -0.8, 0.86), 0.075), lamp))
    canvas.shadow(x - 0.8 * abs(turn) - 0.15, x + 0.8 * abs(turn) + 0.15, z - 0.2, z + 0.2, 0.28)
    if frame.draw("motorcycle", parts, SMOOTH) and rider:
        _draw_rider(frame, saddle=(-0.25, 0.88), grip=(0.36, 1.06), pedals=((0.08, 0.32), (-0.02, 0.34)), helmet=1.0)


def _draw_rider(frame: Frame, *, saddle: Point, grip: Point, pedals: tuple[Point, Point], helmet: float) -> None:
    """Somebody who sits on `saddle` and holds `grip`; `helmet` is how likely one is worn."""
    canvas, rng = frame.canvas, frame.canvas.rng
    coat, trousers, skin = any_color(rng), any_color(rng), _SKINS[int(rng.integers(0, 4))]
    lean = rng.uniform(0.12, 0.34)
    shoulder, wide = (saddle[0] + lean, saddle[1] + 0.5), 0.24 + 0.2 * (1 - abs(frame.turn))
    head = (shoulder[0] + 0.07, shoulder[1] + 0.24)
    spread = 0.14 * (1 - abs(frame.turn)) / max(abs(frame.turn), 0.05)
    parts: list[Part] = []
    for side, pedal in zip((spread, -spread), pedals, strict=True):
        knee = (saddle[0] + 0.38 + side * 1.3, (saddle[1] + pedal[1]) / 2 + 0.12)
        parts += [(frame.limb((saddle[0] + side * 0.6, saddle[1]), knee, 0.19, 0.14), trousers),
                  (frame.limb(knee, (pedal[0] + side, pedal[1]), 0.13, 0.09), varied(rng, trousers, 0.15)),
                  (frame.limb((pedal[0] + side - 0.06, pedal[1]), (pedal[0] + side + 0.12, pedal[1]), 0.08),
                   (30.0, 30.0, 32.0))]  # fmt: skip
    torso = frame.limb(saddle, shoulder, wide * 0.85, wide)
    parts.append((torso, coat))
    for side in (spread * 1.8, -spread * 1.8):
        elbow = ((shoulder[0] + grip[0]) / 2 + side * 1.1, (shoulder[1] + grip[1]) / 2 - 0.08)
        upper = frame.limb((shoulder[0] + side * 0.8, shoulder[1] - 0.05), elbow, 0.12, 0.1)
        lower = frame.limb(elbow, (grip[0] + side, grip[1]), 0.1, 0.07)
        parts += [(upper, varied(rng, coat, 0.2)), (lower, varied(rng, coat, 0.2))]
    parts += [(frame.limb(shoulder, head, 0.1), skin), (frame.disc(head, 0.12), skin)]
    hood = varied(rng, (70, 52, 40), 0.6) if rng.random() > helmet else any_color(rng)
    crown_x, crown_y = frame.at(*head)
    reach = 0.135 * frame.pixels
    cap = [(crown_x + reach * math.cos(a), crown_y - reach * math.sin(a)) for a in np.linspace(0, math.pi, 8).tolist()]
    parts.append((cap, hood))
    if frame.draw("rider", parts, CLOTH):
        _shade(canvas, [torso], frame)
