"""The canvas of a synthetic street scene: a pinhole camera, light, labels drawn beside colours, and the photograph.

World coordinates are metres: x to the right of the camera, y up from the ground, z along the street. Points in pixels
are `(x, y)` as Pillow takes them. Every shape is drawn far to near on two pictures at once: flat colours at twice the
size, which the final reduction turns into smooth edges, and label polygons at the real size, exactly as the official
script draws them. What makes a surface look like leaves or asphalt is one multiplication at the end, by the texture
of the material that is seen at each pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.data.scenery.textures import GRASS, SMOOTH, TILE_PIXELS, Color, Floats, clouds, textures

Point = tuple[float, float]

_SUPERSAMPLING = 2
_TEXELS_PER_METER = 64
_CLASS_OF_NAME = {row.name: row for row in CITYSCAPES.classes}


@dataclass(frozen=True)
class Camera:
    """A level pinhole camera that looks along the street.

    Attributes:
        height: Rows of the picture.
        width: Columns of the picture.
        focal_pixels: Focal length.
        horizon_pixels: Row of the vanishing point.
        center_pixels: Column of the vanishing point.
        eye_meters: Height of the camera above the ground.
    """

    height: int
    width: int
    focal_pixels: float
    horizon_pixels: float
    center_pixels: float
    eye_meters: float

    def project(self, x: float, y: float, z: float) -> Point:
        """Pixel of a point of the world in metres, z > 0."""
        scale = self.focal_pixels / z
        return self.center_pixels + x * scale, self.horizon_pixels + (self.eye_meters - y) * scale

    @property
    def nearest_meters(self) -> float:
        """Distance of the ground that is seen at the bottom row."""
        return self.focal_pixels * self.eye_meters / (self.height - self.horizon_pixels)


@dataclass(frozen=True)
class Plane:
    """An upright plane: `s` metres along the ground from (x0, z0) towards (x1, z1), and `y` metres up."""

    camera: Camera
    x0: float
    z0: float
    x1: float
    z1: float

    @property
    def length(self) -> float:
        """Metres from the first to the second point of the ground."""
        return math.hypot(self.x1 - self.x0, self.z1 - self.z0)

    def at(self, s: float, y: float) -> Point:
        """Pixel of one point of the plane."""
        part = s / self.length
        return self.camera.project(self.x0 + (self.x1 - self.x0) * part, y, self.z0 + (self.z1 - self.z0) * part)

    def points(self, outline: Iterable[Point]) -> list[Point]:
        """Pixels of an outline given as (s, y) in metres."""
        return [self.at(s, y) for s, y in outline]

    def quad(self, s0: float, y0: float, s1: float, y1: float) -> list[Point]:
        """Pixels of a rectangle of the plane."""
        return [self.at(s0, y0), self.at(s1, y0), self.at(s1, y1), self.at(s0, y1)]


@dataclass(frozen=True)
class Light:
    """Brightness of surfaces by the direction they face, and the haze that distant ones fade into."""

    facing_right: float
    facing_left: float
    facing_camera: float
    facing_up: float
    haze: Color
    haze_meters: float

    def side(self, x: float) -> float:
        """Brightness of a surface parallel to the street, at `x`, that is seen from the middle of the street."""
        return self.facing_right if x < 0 else self.facing_left

    def seen(self, color: Color, brightness: float, z: float) -> tuple[int, int, int]:
        """RGB 0..255 of a colour under this light through `z` metres of haze."""
        keep = math.exp(-z / self.haze_meters)
        gain, haze, fog = brightness * keep, self.haze, 1 - keep
        return (
            min(int(color[0] * gain + haze[0] * fog), 255),
            min(int(color[1] * gain + haze[1] * fog), 255),
            min(int(color[2] * gain + haze[2] * fog), 255),
        )


@dataclass(frozen=True)
class LabelledPolygon:
    """One object of a scene: its label's name and its outline as integer `(x, y)` pixels."""

    label: str
    polygon: tuple[tuple[int, int], ...]


@dataclass
class Canvas:
    """Colours, labels, instances and materials of one scene while it is painted, far to near."""

    camera: Camera
    light: Light
    rng: np.random.Generator
    objects: list[LabelledPolygon] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Set up the empty pictures."""
        size = (self.camera.width, self.camera.height)
        self.picture = Image.new("RGB", (size[0] * _SUPERSAMPLING, size[1] * _SUPERSAMPLING))
        self.label_ids = Image.new("L", size, 0)
        self.instance_ids = Image.new("I", size, 0)
        self.materials = Image.new("L", size, SMOOTH)
        self._opaque = ImageDraw.Draw(self.picture)
        self._translucent = ImageDraw.Draw(self.picture, "RGBA")
        self._labels = ImageDraw.Draw(self.label_ids)
        self._instances = ImageDraw.Draw(self.instance_ids)
        self._materials = ImageDraw.Draw(self.materials)
        self._num_instances: dict[str, int] = {}

    @property
    def scale(self) -> float:
        """Size of the picture against the 256 rows that line widths are given for."""
        return self.camera.height / 256

    def label(self, name: str, points: Sequence[Point], material: int | None = SMOOTH) -> bool:
        """Record a labelled polygon and draw it into the label pictures.

        Args:
            name: A name of the Cityscapes table.
            points: Outline in pixels.
            material: Texture of the surface; None keeps what shines through.

        Returns:
            Whether any of it can lie inside the picture; nothing is recorded otherwise.
        """
        outline = _clip(points, self.camera.height, self.camera.width)
        if len(outline) < 3:
            return False
        row = _CLASS_OF_NAME[name]
        instance = row.id
        if row.has_instances:
            number = self._num_instances.get(name, 0)
            self._num_instances[name] = number + 1
            instance = row.id * 1000 + number
        self._labels.polygon(outline, fill=row.id)
        self._instances.polygon(outline, fill=instance)
        if material is not None:
            self._materials.polygon(outline, fill=material)
        self.objects.append(LabelledPolygon(name, tuple(outline)))
        return True

    def fill(self, points: Sequence[Point], color: Color, *, z: float, light: float = 1.0) -> None:
        """Fill a polygon given in pixels with a colour as seen at `z` metres."""
        self._opaque.polygon(_enlarge(points), fill=self.light.seen(color, light, z))

    def glaze(self, points: Sequence[Point], color: Color, opacity: float) -> None:
        """Fill a polygon given in pixels with a translucent colour, opacity 0..1."""
        red, green, blue = (int(value) for value in color)
        self._translucent.polygon(_enlarge(points), fill=(red, green, blue, int(255 * opacity)))

    def line(self, points: Sequence[Point], color: Color, width_pixels: float, *, z: float, light: float = 1.0) -> None:
        """Draw a line of `width_pixels`, at least half a pixel."""
        width = max(1, round(width_pixels * _SUPERSAMPLING))
        self._opaque.line(_enlarge(points), fill=self.light.seen(color, light, z), width=width)

    def ellipse(self, center: Point, radii: Point, color: Color, *, z: float, light: float = 1.0) -> None:
        """Fill an upright ellipse given in pixels."""
        (x, y), (a, b) = center, radii
        box = _enlarge([(x - a, y - b), (x + a, y + b)])
        self._opaque.ellipse(box, fill=self.light.seen(color, light, z))

    def shadow(self, x0: float, x1: float, z0: float, z1: float, opacity: float = 0.3) -> None:
        """Darken the ground under an object, softly, over a rectangle of the ground in metres."""
        for spread in (0.5, 0.25, 0.0):
            left, near = self.camera.project(x0 - spread, 0, max(z0 - spread, 0.5))
            right, _ = self.camera.project(x1 + spread, 0, max(z0 - spread, 0.5))
            far_left, far = self.camera.project(x0 - spread, 0, z1 + spread)
            far_right, _ = self.camera.project(x1 + spread, 0, z1 + spread)
            self.glaze([(left, near), (right, near), (far_right, far), (far_left, far)], (8, 8, 14), opacity)

    def clouds(self, bottom_pixels: float, opacity: float) -> None:
        """Blend white clouds over the rows above `bottom_pixels`; drawn before anything that stands in front."""
        size = (self.picture.width, max(1, round(bottom_pixels * _SUPERSAMPLING)))
        start = int(self.rng.integers(0, TILE_PIXELS // 2))
        part = clouds()[:, start : start + TILE_PIXELS // 2]
        mask = Image.fromarray((part * (255 * opacity)).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
        self.picture.paste((246, 246, 248), (0, 0), mask)

    def finish(self) -> npt.NDArray[np.uint8]:
        """The photograph: uint8 RGB `(H, W, 3)` with textures, lens blur, tint and sensor noise."""
        rng = self.rng
        blur = ImageFilter.BoxBlur(float(rng.uniform(0.15, 0.5)) * self.scale)
        image = np.asarray(self.picture.reduce(_SUPERSAMPLING).filter(blur)).astype(np.float32)
        image *= self._texture()[:, :, None]
        warmth = rng.uniform(-0.06, 0.06)
        tint = np.array([1 + warmth, 1.0, 1 - warmth]) * rng.uniform(0.9, 1.25)
        rows = np.linspace(-1, 1, self.camera.height, dtype=np.float32)[:, None]
        columns = np.linspace(-1, 1, self.camera.width, dtype=np.float32)[None, :]
        falloff = 1 - rng.uniform(0.0, 0.12) * (rows**2 + columns**2)
        image *= falloff.astype(np.float32)[:, :, None] * tint.astype(np.float32)
        noise = rng.standard_normal((self.camera.height, self.camera.width, 3), dtype=np.float32)
        image += noise * np.float32(rng.uniform(1.0, 4.5))
        return np.clip(image, 0, 255).astype(np.uint8)

    def _texture(self) -> Floats:
        """float32 `(H, W)`: brightness factor of the material at each pixel."""
        camera = self.camera
        tiles = textures(max(1, round(self.scale)))
        shift_y, shift_x = (int(value) for value in self.rng.integers(0, TILE_PIXELS, 2))
        rows = np.arange(camera.height, dtype=np.int64)[:, None] + shift_y
        columns = np.arange(camera.width, dtype=np.int64)[None, :] + shift_x
        place = (rows % TILE_PIXELS) * TILE_PIXELS + columns % TILE_PIXELS
        material = np.asarray(self.materials).astype(np.int64)
        texture = tiles.reshape(-1)[material * TILE_PIXELS**2 + place]
        # The ground is looked up by where it lies in the street, so that its grain shrinks with the distance.
        start = max(int(camera.horizon_pixels) + 2, 0)
        below = np.arange(start, camera.height, dtype=np.float32)[:, None] - np.float32(camera.horizon_pixels)
        z = camera.focal_pixels * camera.eye_meters / below
        x = (np.arange(camera.width, dtype=np.float32)[None, :] - camera.center_pixels) * (z / camera.focal_pixels)
        row = (z * _TEXELS_PER_METER + shift_y).astype(np.int64) % TILE_PIXELS
        column = (x * _TEXELS_PER_METER + shift_x).astype(np.int64) % TILE_PIXELS
        kind = material[start:]
        ground = tiles.reshape(-1)[kind * TILE_PIXELS**2 + row * TILE_PIXELS + column]
        fade = np.clip(below / (0.25 * camera.height), 0.25, 1)  # far grain would only alias
        texture[start:] = np.where(kind <= GRASS, 1 + (ground - 1) * fade, texture[start:])
        return texture


def _enlarge(points: Sequence[Point]) -> list[Point]:
    """Points of the picture on the supersampled canvas; pixel centres stay pixel centres."""
    return [(x * _SUPERSAMPLING + 0.5, y * _SUPERSAMPLING + 0.5) for x, y in points]


def _clip(points: Sequence[Point], height: int, width: int) -> list[tuple[int, int]]:
    """Cut a polygon at one pixel outside the picture and round it; fewer than 3 points when nothing is left.

    One pixel outside, because Pillow also draws the edges that cutting adds.
    """
    outline = list(points)
    for axis, limit, sign in ((0, -1, 1), (0, width, -1), (1, -1, 1), (1, height, -1)):
        inside = [(point[axis] - limit) * sign >= 0 for point in outline]
        if all(inside):
            continue
        kept: list[Point] = []
        for index, point in enumerate(outline):
            before = outline[index - 1]
            if inside[index] != inside[index - 1]:
                part = (limit - before[axis]) / (point[axis] - before[axis])
                kept.append((before[0] + (point[0] - before[0]) * part, before[1] + (point[1] - before[1]) * part))
            if inside[index]:
                kept.append(point)
        outline = kept
    rounded = [(round(x), round(y)) for x, y in outline]
    return [point for index, point in enumerate(rounded) if point != rounded[index - 1]]


def envelope(shapes: Sequence[Sequence[Point]], *, axis: int) -> list[Point]:
    """Outline of several polygons together: their two outermost borders across one axis, in pixels.

    Args:
        shapes: Closed polygons in pixels.
        axis: 0 follows the upper and lower border from left to right, 1 the left and right border downwards.
    """
    starts = np.array([point for shape in shapes for point in shape], np.float64)
    ends = np.array([point for shape in shapes for point in (*shape[1:], shape[0])], np.float64)
    flip = starts[:, axis] > ends[:, axis]
    starts[flip], ends[flip] = ends[flip], starts[flip]
    low, high = starts[:, axis].min(), ends[:, axis].max()
    along = np.linspace(low, high, int(min(max(high - low, 2), 28)) + 1)
    begin, stop = starts[:, axis, None], ends[:, axis, None]
    part = (along - begin) / np.maximum(stop - begin, 1e-6)
    across = starts[:, 1 - axis, None] + (ends - starts)[:, 1 - axis, None] * np.clip(part, 0, 1)
    covered = (along >= begin - 1e-6) & (along <= stop + 1e-6)
    first = np.where(covered, across, np.inf).min(0)
    last = np.where(covered, across, -np.inf).max(0)
    met = covered.any(0)  # parts may lie apart
    along, first, last = along[met], first[met], last[met]
    border = [*zip(along, first, strict=True), *zip(along[::-1], last[::-1], strict=True)]
    return [(float(a), float(b)) if axis == 0 else (float(b), float(a)) for a, b in border]
