"""Colours and textures of synthetic streets: what surfaces look like, whatever their class.

Paint, plaster and cloth draw from one distribution of colours, stone and asphalt from another, leaves and grass from a
third; none belongs to a single class.
"""

from __future__ import annotations

import colorsys
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

Color = tuple[float, float, float]
Floats = npt.NDArray[np.float32]

TILE_PIXELS = 512
_STRONG_HUES = (
    0.0,
    0.01,
    0.03,
    0.1,
    0.14,
    0.36,
    0.46,
    0.57,
    0.6,
    0.62,
    0.66,
)  # of cars, signs and shop fronts: few violet

# Materials: which texture a surface gets. The first three lie on the ground plane, the others face the camera.
ASPHALT, PAVING, GRASS, SMOOTH, LEAVES, FINE_LEAVES, BRICK, PLASTER, STONE, CLOTH = range(10)


def _noise(rng: np.random.Generator, cell_rows: float, cell_columns: float) -> Floats:
    """Smooth noise that repeats without a seam: float32 tile, mean 0, deviation about 1."""
    rows = max(2, round(TILE_PIXELS / cell_rows))
    columns = max(2, round(TILE_PIXELS / cell_columns))
    values = np.pad(rng.standard_normal((rows, columns), dtype=np.float32), 2, mode="wrap")
    box = (2.0, 2.0, columns + 2.0, rows + 2.0)
    tile = np.asarray(Image.fromarray(values).resize((TILE_PIXELS, TILE_PIXELS), Image.Resampling.BICUBIC, box=box))
    result: Floats = (tile / tile.std()).astype(np.float32)
    return result


@lru_cache(maxsize=1)
def clouds() -> Floats:
    """Cover by clouds 0..1: float32 `(512, 512)`."""
    rng = np.random.default_rng(20180202)
    noise = _noise(rng, 128, 100) + 0.6 * _noise(rng, 50, 40) + 0.3 * _noise(rng, 20, 14) + 0.15 * _noise(rng, 8, 6)
    cover: Floats = np.clip(0.5 * noise, 0, 1).astype(np.float32)
    return cover


def _blocks(rng: np.random.Generator, block_height: int, block_width: int, contrast: float) -> Floats:
    """Rows of blocks, each a little brighter or darker, with dark joints, every other row shifted by half."""
    y, x = np.mgrid[:TILE_PIXELS, :TILE_PIXELS]
    row = y // block_height
    shifted = x + (row % 2) * (block_width // 2)
    column = (shifted // block_width) % max(1, TILE_PIXELS // block_width)
    tone = rng.normal(0, contrast, (row.max() + 1, column.max() + 1))[row, column]
    joint = (y % block_height == 0) | (shifted % block_width == 0)
    return np.where(joint, -2.2 * contrast, tone).astype(np.float32)


@lru_cache(maxsize=2)
def textures(scale: int) -> Floats:
    """Brightness factors of all materials: float32 `(10, 512, 512)`, about 1 on average.

    Args:
        scale: Coarseness of the materials that face the camera; 1 suits pictures of 256 rows.
    """
    rng = np.random.default_rng(20170617)
    fine, soft = _noise(rng, 1.5 * scale, 1.5 * scale), _noise(rng, 48 * scale, 48 * scale)
    leaves = _noise(rng, 3.2 * scale, 3.6 * scale) + 0.6 * _noise(rng, 9 * scale, 9 * scale)
    small_leaves = _noise(rng, 2.0 * scale, 2.2 * scale) + 0.6 * _noise(rng, 6 * scale, 6 * scale)
    patches = _noise(rng, 170, 100)
    by_material = {
        ASPHALT: 0.05 * _noise(rng, 2.5, 2.5) + 0.05 * patches,
        PAVING: _blocks(rng, 32, 32, 0.06) + 0.03 * _noise(rng, 2.5, 2.5) + 0.03 * patches,
        GRASS: 0.14 * _noise(rng, 18, 3.5) + 0.09 * _noise(rng, 60, 40),
        SMOOTH: 0.012 * fine,
        LEAVES: 0.34 * np.tanh(0.9 * leaves),
        FINE_LEAVES: 0.28 * np.tanh(0.9 * small_leaves),
        BRICK: _blocks(rng, 3 * scale, 7 * scale, 0.045) + 0.02 * fine + 0.03 * soft,
        PLASTER: 0.025 * fine + 0.05 * soft,
        STONE: _blocks(rng, 7 * scale, 13 * scale, 0.06) + 0.05 * fine,
        CLOTH: 0.07 * _noise(rng, 5 * scale, 2.5 * scale),
    }
    return np.stack([1 + by_material[material] for material in range(len(by_material))]).astype(np.float32)


def any_color(rng: np.random.Generator) -> Color:
    """A colour that paint, plaster or cloth may have: often grey, sometimes muted, sometimes strong."""
    kind, hue, value = rng.uniform(0, 1, 3)
    if kind < 0.45:
        return _from_hsv(hue, rng.uniform(0, 0.08), 0.12 + 0.8 * value)
    if kind < 0.8:
        return _from_hsv(hue, rng.uniform(0.1, 0.4), 0.2 + 0.65 * value)
    strong = _STRONG_HUES[int(hue * len(_STRONG_HUES))] + 0.02 * rng.standard_normal()
    return _from_hsv(strong, rng.uniform(0.45, 0.9), 0.25 + 0.65 * value)


def muted(color: Color) -> Color:
    """The same colour with half of its saturation."""
    gray = sum(color) / 3
    return (color[0] + gray) / 2, (color[1] + gray) / 2, (color[2] + gray) / 2


def mineral_color(rng: np.random.Generator, low: float = 0.25, high: float = 0.75) -> Color:
    """A grey, beige or brownish colour of stone, asphalt or concrete, value `low`..`high`."""
    return _from_hsv(rng.uniform(0.02, 0.14), rng.uniform(0.0, 0.22), rng.uniform(low, high))


def plant_color(rng: np.random.Generator) -> Color:
    """A green of leaves or grass, from dark to dry."""
    return _from_hsv(rng.uniform(0.13, 0.38), rng.uniform(0.25, 0.62), rng.uniform(0.26, 0.62))


def varied(rng: np.random.Generator, color: Color, amount: float = 0.08) -> Color:
    """The same colour a little brighter or darker."""
    factor = 1 + amount * rng.uniform(-1, 1)
    return color[0] * factor, color[1] * factor, color[2] * factor


def _from_hsv(hue: float, saturation: float, value: float) -> Color:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return 255 * red, 255 * green, 255 * blue
