"""Pictures for products that nobody has photographed: drawn, and always the same for the same name.

A name is `art-<what it shows>-<hash>.svg`: the hash chooses colours and ground, so two lamps are
not alike. It is made of `STYLE` too: a picture that would look different has another name, and
whoever keeps pictures for ever is right to.
"""

from __future__ import annotations

import hashlib
import random
import re
from typing import Final

from headgate_shop.products.motifs import MOTIFS, OF_CATEGORY, OF_WORD

__all__ = ["art_for", "draw", "is_drawing"]

STYLE: Final = "1"
_NAME: Final = re.compile(r"art-([a-z]+)-([0-9a-f]{16})\.svg")
_WORD: Final = re.compile(r"[a-z]+")

PALETTES: Final = (
    # ground, its shape, the thing, set off by, dark, light
    ("#f3ece2", "#e6d5bd", "#c8643c", "#e9a15b", "#4a2f27", "#fff8ec"),
    ("#e6eff0", "#c5dde0", "#2f7f86", "#8fc1b5", "#163c44", "#f7fffb"),
    ("#f6e9e8", "#ecc9c6", "#b9485a", "#efa48b", "#47202f", "#fff4ef"),
    ("#ebefe2", "#cfdcb8", "#5d8a4a", "#b7c46a", "#26402b", "#fbfff0"),
    ("#ece9f4", "#d1c9e8", "#6a5aa8", "#b29adb", "#2b2350", "#faf7ff"),
    ("#fbf1d9", "#f4dc9c", "#d9982b", "#efc35a", "#54381a", "#fffbee"),
    ("#e7ecf5", "#c4d2ea", "#3c64a8", "#85aee0", "#1c2d52", "#f5f9ff"),
    ("#f1ebe6", "#dccdc1", "#8a6a54", "#c39e7f", "#35261e", "#fffaf5"),
    ("#e4f1ea", "#bfe0cf", "#2d8f6a", "#f0b35c", "#173f33", "#f6fffa"),
    ("#f4e9f0", "#e4c6d9", "#a3487f", "#dc93b8", "#40193a", "#fff5fb"),
)
GROUNDS: Final = (
    '<circle cx="200" cy="200" r="{r}" fill="{s}"/>',
    '<path d="M{x} 400V{y}a{w} {w} 0 0 1 {v} 0V400z" fill="{s}"/>',
    '<path d="M0 {h}q100-{k} 200 0t200 0V400H0z" fill="{s}"/>',
    (
        '<rect x="{q}" y="{q}" width="{e}" height="{e}" rx="40" fill="{s}"'
        ' transform="rotate({t} 200 200)"/>'
    ),
)


def art_for(product_id: str, name: str, category: str) -> str:
    """The name of the picture for a product."""
    motif = _motif(name, category)
    digest = hashlib.sha256(f"{STYLE}:{motif}:{product_id}".encode()).hexdigest()
    return f"art-{motif}-{digest[:16]}.svg"


def _motif(name: str, category: str) -> str:
    words = _WORD.findall(name.lower())
    for size in (2, 1):
        for start in range(len(words) - size, -1, -1):  # what it is stands at the end of a name
            found = OF_WORD.get(" ".join(words[start : start + size]))
            if found is not None:
                return found
        if size == 1:
            break
    return OF_CATEGORY.get(category, "jar")


def is_drawing(name: str) -> bool:
    match = _NAME.fullmatch(name)
    return match is not None and match[1] in MOTIFS


def draw(name: str) -> str:
    """The SVG that this name stands for."""
    match = _NAME.fullmatch(name)
    if match is None or match[1] not in MOTIFS:
        raise ValueError(f"{name!r} is not the name of a drawing")
    rng = random.Random(match[2])
    paper, shape, a, b, c, d = rng.choice(PALETTES)
    if rng.random() < 0.35:
        a, b = b, a
    thing = MOTIFS[match[1]].format(a=a, b=b, c=c, d=d)
    if rng.random() < 0.4:
        thing = f'<g transform="translate(400 0) scale(-1 1)">{thing}</g>'
    size = rng.randint(92, 106) / 100
    shadow = rng.randint(120, 140)
    move = round(200 * (1 - size), 1)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 400 400" role="img">'
        f'<rect width="400" height="400" fill="{paper}"/>{_ground(shape, rng)}'
        f'<ellipse cx="200" cy="322" rx="{shadow}" ry="12" fill="{c}" opacity=".16"/>'
        f'<g transform="translate({move} {round(320 * (1 - size), 1)}) scale({size})">{thing}</g>'
        "</svg>"
    )


def _ground(shape: str, rng: random.Random) -> str:
    radius, half = rng.randint(140, 172), rng.randint(104, 140)
    corner = rng.randint(44, 70)
    return rng.choice(GROUNDS).format(
        s=shape,
        r=radius,
        x=200 - half,
        y=rng.randint(150, 210),
        w=half,
        v=2 * half,
        h=rng.randint(220, 280),
        k=rng.randint(30, 80),
        q=corner,
        e=400 - 2 * corner,
        t=rng.randint(-18, 18),
    )
