"""What the shop sells: products that nobody has invented by hand, and that read as if.

    items = catalogue(3000)

Theory of operation
-------------------
Item `n` is of category `n % 12` and made by a generator of its own, seeded with `n`: the first
sixty of a catalogue of three thousand are the catalogue of sixty. A name that has been given is
drawn again, so names are unique. Ages are days before today, and popularity is what share of an
average product's sales this one has: a few sell very well and most sell a little, by the law of
Zipf, whatever their number in the list.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from headgate_shop.data.words import CATEGORIES, COLLECTIONS, Category, Kind

__all__ = ["CATEGORIES", "CURRENCY", "Item", "catalogue", "category_names"]

CURRENCY: Final = "EUR"
OLDEST_DAYS: Final = 900
FEATURED: Final = 0.02
SOLD_OUT: Final = 0.03
SCARCE: Final = 0.05
NAMES_FREE: Final = 20_000


@dataclass(frozen=True, slots=True)
class Item:
    id: str
    name: str
    description: str
    category: str
    """The slug."""
    brand: str
    price: int
    """In cents."""
    rating: float
    """One to five, in tenths."""
    featured: bool
    stock: int
    """On the shelf when the shop opens."""
    age_days: float
    """How long ago it came into the shop."""
    popularity: float
    """1.0 is an average product."""
    currency: str = CURRENCY


def category_names() -> dict[str, str]:
    return {category.slug: category.name for category in CATEGORIES}


def catalogue(count: int, seed: int = 1) -> list[Item]:
    """`count` products, `p-00001` and on."""
    taken: set[str] = set()
    return [_item(number, seed, taken) for number in range(1, count + 1)]


def _item(number: int, seed: int, taken: set[str]) -> Item:
    rng = random.Random(seed * 1_000_003 + number)
    category = CATEGORIES[number % len(CATEGORIES)]
    kind = rng.choice(category.kinds)
    name = _name(category, kind, rng, taken)
    quality = rng.betavariate(4, 2)
    popularity = min(12.0, rng.paretovariate(1.3) * 0.3)
    return Item(
        id=f"p-{number:05d}",
        name=name,
        description=_description(category, kind, rng),
        category=category.slug,
        brand=rng.choice(category.brands),
        price=_price(kind, quality, rng),
        rating=round(2.9 + 2.1 * (0.7 * quality + 0.3 * rng.random()), 1),
        featured=rng.random() < FEATURED or number <= len(CATEGORIES) // 2,
        stock=_stock(popularity, rng),
        age_days=round(rng.random() ** 1.2 * OLDEST_DAYS + 0.5, 3),
        popularity=round(popularity, 4),
    )


def _name(category: Category, kind: Kind, rng: random.Random, taken: set[str]) -> str:
    while True:
        make = rng.choice(category.makes)
        name = f"{rng.choice(COLLECTIONS)} {make} {kind.noun}"
        if name not in taken:
            break
        if len(taken) > NAMES_FREE:  # soon there are no others: then they are numbered
            name = f"{name} No. {len(taken)}"
            break
    taken.add(name)
    return name


def _description(category: Category, kind: Kind, rng: random.Random) -> str:
    facts = rng.sample(kind.says, k=len(kind.says))
    first, rest = facts[0], facts[1:]
    middle = f"{first[0].upper()}{first[1:]}; {', '.join(rest)}." if rest else f"{first}."
    return f"{rng.choice(category.openings)} {middle} {rng.choice(category.endings)}"


def _price(kind: Kind, quality: float, rng: random.Random) -> int:
    """Between the kind's bounds, the dearer the better, and ending as prices do."""
    place = min(1.0, max(0.0, 0.75 * quality + 0.35 * (rng.random() - 0.3)))
    cents = math.exp(
        math.log(kind.lowest) + place * (math.log(kind.highest) - math.log(kind.lowest))
    )
    return _ending(cents, rng)


def _ending(cents: float, rng: random.Random) -> int:
    euros = max(1, round(cents / 100))
    if euros < 20:
        return euros * 100 - _one_of((1, 5, 10, 51), rng)
    if euros < 100:
        return euros * 100 - _one_of((0, 5, 10, 100), rng)
    if euros < 400:
        return round(euros / 5) * 500 - _one_of((0, 100, 5), rng)
    return round(euros / 10) * 1000 - _one_of((0, 100), rng)


def _one_of(values: Sequence[int], rng: random.Random) -> int:
    return values[int(rng.random() * len(values))]


def _stock(popularity: float, rng: random.Random) -> int:
    chance = rng.random()
    if chance < SOLD_OUT:
        return 0
    if chance < SOLD_OUT + SCARCE:
        return rng.randint(1, 4)
    return 12 + int(rng.lognormvariate(3.2, 0.5) * (0.6 + popularity))
