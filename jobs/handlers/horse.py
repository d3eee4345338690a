"""Draw a horse as a PNG, with nothing but the standard library: the same prompt and seed give the same picture."""

import base64
import math
import random
import struct
import zlib
from typing import Any

WIDTH, HEIGHT = 96, 64

Colour = tuple[float, float, float]
Bone = tuple[float, float, float, float, float, float]
"""A limb: x, y and radius of one end, then of the other; the horse looks right, the ground is at y = 0."""

STYLES: dict[str, tuple[Colour, Colour, Colour, Colour]] = {
    "dawn": ((88, 80, 141), (255, 166, 158), (255, 236, 179), (61, 43, 86)),
    "noon": ((64, 156, 222), (207, 236, 248), (255, 250, 214), (64, 96, 52)),
    "dusk": ((58, 28, 92), (240, 110, 70), (255, 205, 110), (38, 20, 44)),
    "night": ((8, 12, 36), (44, 62, 108), (236, 240, 255), (12, 16, 30)),
}
"""Top of the sky, horizon, sun or moon, ground."""

TRUNK: list[Bone] = [
    (-13, 27, 6.5, 0, 26, 6.4),  # hind quarters and belly
    (0, 26, 6.4, 10, 27, 6.6),  # belly and chest
    (10, 29, 5.4, 20, 43, 2.9),  # neck
    (20, 43, 3.0, 28, 38, 1.7),  # head
    (19, 46, 0.9, 20.4, 48.6, 0.4),  # ear
    (13, 38, 2.2, 18, 45, 1.4),  # mane
]


def handler(job: dict[str, Any]) -> dict[str, Any]:
    """A picture for ``prompt`` in a ``style``: PNG as base64, as image models on RunPod give it."""
    given = job["input"]
    prompt, style, seed = str(given["prompt"]), str(given.get("style", "noon")), int(given["seed"])
    if style not in STYLES:
        raise ValueError(f"unknown style {style!r}, known: {', '.join(STYLES)}")
    image = png(paint(STYLES[style], random.Random(f"{prompt}\n{seed}")))
    return {"image": base64.b64encode(image).decode(), "width": WIDTH, "height": HEIGHT, "seed": seed}


def paint(style: tuple[Colour, Colour, Colour, Colour], chance: random.Random) -> list[list[Colour]]:
    """The rows of a picture, from the top: sky, sun, two hills and a horse, placed by *chance*."""
    top, horizon, sun, ground = style
    sun_x, sun_y, sun_r = chance.uniform(12, 84), chance.uniform(10, 26), chance.uniform(5, 8)
    hills = [(chance.uniform(0, 6.3), chance.uniform(0.05, 0.09), chance.uniform(2, 4)) for _ in range(2)]
    bones = pose(chance.uniform(0, 2 * math.pi))
    mirrored, at_x, size = chance.random() < 0.5, chance.uniform(40, 56), chance.uniform(0.72, 0.86)
    rows = []
    for y in range(HEIGHT):
        row = []
        for x in range(WIDTH):
            colour = mixed(top, horizon, y / 46)
            away = math.hypot(x - sun_x, y - sun_y) - sun_r
            colour = mixed(colour, sun, max(edge(away), 0.45 * math.exp(-max(away, 0) / 7)))
            for depth, (phase, pace, rise) in enumerate(hills):
                line = 44 + 8 * depth - rise * math.sin(phase + pace * x)
                colour = mixed(colour, mixed(horizon, ground, 0.55 + 0.3 * depth), edge(line - y))
            local_x, local_y = (at_x - x if mirrored else x - at_x) / size, (57 - y) / size
            if abs(local_x) < 36 and -2 < local_y < 52:  # elsewhere is no part of the horse
                near = min(distance(bone, local_x, local_y) for bone in bones)
                colour = mixed(colour, mixed(ground, (0, 0, 0), 0.45), edge(near * size))
            row.append(colour)
        rows.append(row)
    return rows


def pose(phase: float) -> list[Bone]:
    """All bones of a horse in a gallop; *phase* says where in a stride it is."""
    bones = list(TRUNK)
    for hip, reach, lag in ((-14, 9, 0.0), (-12, 9, 0.9), (9, 10, 2.6), (11, 10, 3.4)):
        swing = math.sin(phase + lag)
        knee_x, knee_y = hip + reach * 0.6 * swing, 14 + 2.5 * max(swing, 0)
        foot_x, foot_y = knee_x + reach * 0.5 * math.sin(phase + lag - 0.9), 1.5 + 4 * max(math.cos(phase + lag), 0)
        bones += [(hip, 24, 3.4, knee_x, knee_y, 1.7), (knee_x, knee_y, 1.6, foot_x, foot_y, 1.0)]
        bones.append((foot_x, foot_y, 1.1, foot_x + 1.6, foot_y - 0.6, 1.0))
    sway = 3 * math.sin(phase)
    return [*bones, (-18, 30, 1.8, -25, 27 + sway, 2.2), (-25, 27 + sway, 2.2, -31, 19 + 2 * sway, 0.6)]


def distance(bone: Bone, x: float, y: float) -> float:
    """How far a point is from a limb, below zero inside."""
    x0, y0, r0, x1, y1, r1 = bone
    along_x, along_y = x1 - x0, y1 - y0
    share = ((x - x0) * along_x + (y - y0) * along_y) / (along_x**2 + along_y**2)
    share = min(max(share, 0.0), 1.0)
    return math.hypot(x - x0 - share * along_x, y - y0 - share * along_y) - (r0 + share * (r1 - r0))


def edge(distance: float) -> float:
    """How much of a pixel is covered, so that outlines are smooth."""
    return min(max(0.5 - distance, 0.0), 1.0)


def mixed(one: Colour, other: Colour, share: float) -> Colour:
    """A colour between two, *share* of the way to the *other*."""
    share = min(max(share, 0.0), 1.0)
    return (
        one[0] + (other[0] - one[0]) * share,
        one[1] + (other[1] - one[1]) * share,
        one[2] + (other[2] - one[2]) * share,
    )


def png(rows: list[list[Colour]]) -> bytes:
    """The *rows* as a PNG of 8 bits a channel."""
    lines = b"".join(b"\0" + bytes(round(part) for pixel in row for part in pixel) for row in rows)
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
