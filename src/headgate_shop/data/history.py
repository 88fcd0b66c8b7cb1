"""Months of orders that look like those of a shop: the past that services are seeded with.

Theory of operation
-------------------
Everything follows from `size`, `today` and `seed`: services that are seeded apart agree to the
order. Orders come in the order of time and the last is of the evening before `today`.

What is in it to be found again: weekdays and hours; a season for each category; products that rise,
fade or began in the middle of the time; a long tail, so that most products sell now and then;
promotions, which are bursts of a few days at a lower price; customers who come back and have a
favourite category; and products that are bought together because they are companions.
"""

from __future__ import annotations

import math
import random
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate
from typing import Final, Literal
from zlib import crc32

from headgate_shop.data import SeedSize
from headgate_shop.data.catalogue import Item, catalogue
from headgate_shop.data.people import ACCOUNTS, customers

__all__ = ["PastLine", "PastOrder", "PastStatus", "companions", "history"]

PastStatus = Literal["paid", "shipped", "cancelled", "refused"]

WEEKDAYS: Final = (0.92, 0.86, 0.88, 0.95, 1.08, 1.24, 1.17)
HOURS: Final = (
    *(4, 2, 1, 1, 1, 2, 5, 11, 18, 26, 31, 34),
    *(38, 33, 28, 27, 30, 36, 45, 58, 66, 58, 35, 14),
)
GROWTH: Final = 0.25
"""So much more is sold at the end of the time than at its beginning."""
PROMOTION_EVERY_DAYS: Final = 11
HEAD: Final = 1.6
"""The power of an item's popularity: what sells well sells much more than what sells a little."""
COMPANY: Final = 0.45
"""How often the next thing in a basket is a companion of one that lies there."""
MORE: Final = 0.42
BASKET_MAX: Final = 8
REGULAR: Final = 3.0
"""How often one buys who can sign in, beside the average customer."""
QUANTITIES: Final = ((0.83, 1), (0.95, 2), (0.99, 3), (1.0, 5))
SHIPPED_AFTER_DAYS: Final = 3


@dataclass(frozen=True, slots=True)
class PastLine:
    product_id: str
    quantity: int
    price: int
    """In cents, for one, at that time."""
    name: str
    category: str

    @property
    def total(self) -> int:
        return self.quantity * self.price


@dataclass(frozen=True, slots=True)
class PastOrder:
    order_id: str
    customer_id: str
    placed_at: datetime
    lines: tuple[PastLine, ...]
    status: PastStatus

    @property
    def total(self) -> int:
        return sum(line.total for line in self.lines)

    @property
    def is_sale(self) -> bool:
        """Whether it was paid and stayed so."""
        return self.status in ("paid", "shipped")


@dataclass(frozen=True, slots=True)
class _Promotion:
    first: int
    last: int
    products: frozenset[int]
    factor: float
    discount: float


@dataclass(frozen=True, slots=True)
class _Shopper:
    customer_id: str
    weight: float
    since: int
    favourite: str


def history(size: SeedSize, *, today: date, seed: int = 1) -> Iterator[PastOrder]:
    """The orders of the days before `today`, the oldest first."""
    items = catalogue(size.products, seed)
    if not items or size.days < 1:
        return
    rng = random.Random(f"history {seed}")
    shoppers = _shoppers(size, items, rng, seed)
    popularity = _popularity(items, rng)
    rises, begins = _trends(items, size.days, rng)
    promotions = _promotions(items, size.days, rng)
    company = companions(items, seed)
    by_category = _by_category(items)
    number = 0
    for day in range(size.days):
        on = today - timedelta(days=size.days - day)
        seasons = {category: _season(category, on) for category in by_category}
        running = [one for one in promotions if one.first <= day <= one.last]
        weights = [
            base * rise**day * seasons[item.category] if begin <= day else 0.0
            for base, rise, begin, item in zip(popularity, rises, begins, items, strict=True)
        ]
        discounts: dict[int, float] = {}
        for promotion in running:
            for place in promotion.products:
                weights[place] *= promotion.factor
                discounts[place] = promotion.discount
        shelf = _Shelf(items, weights, by_category, company)
        there = [one for one in shoppers if one.since <= day]
        who = list(accumulate(one.weight for one in there))
        mean = (
            size.orders_per_day
            * WEEKDAYS[on.weekday()]
            * (1 + GROWTH * (day / size.days - 0.5))
            * (1 + 0.15 * len(running))
        )
        placed: list[tuple[datetime, _Shopper, tuple[PastLine, ...]]] = []
        for _ in range(_poisson(mean, rng)):
            shopper = there[bisect(who, rng.random() * who[-1], 0, len(there) - 1)]
            basket = shelf.basket(shopper.favourite, rng)
            lines = tuple(_line(items[place], discounts.get(place, 0.0), rng) for place in basket)
            placed.append((_moment(on, rng), shopper, lines))
        placed.sort(key=lambda one: one[0])
        for at, shopper, lines in placed:
            number += 1
            yield PastOrder(
                order_id=f"o-{number:07d}",
                customer_id=shopper.customer_id,
                placed_at=at,
                lines=lines,
                status=_status(size.days - day, rng),
            )


def companions(items: Sequence[Item], seed: int = 1) -> list[tuple[int, ...]]:
    """What is bought with each: places in `items`, two or three of the same shelf or the next."""
    rng = random.Random(f"companions {seed}")
    by_category = _by_category(items)
    names = sorted(by_category)
    found: list[tuple[int, ...]] = []
    for place, item in enumerate(items):
        near = names[(names.index(item.category) + 1) % len(names)]
        chosen: list[int] = []
        for _ in range(rng.choice((0, 2, 2, 3))):
            among = by_category[item.category if rng.random() < 0.6 else near]
            one = among[rng.randrange(len(among))]
            if one != place and one not in chosen:
                chosen.append(one)
        found.append(tuple(chosen))
    return found


class _Shelf:
    """What can be bought on one day, and how likely each is."""

    def __init__(
        self,
        items: Sequence[Item],
        weights: Sequence[float],
        by_category: dict[str, list[int]],
        company: Sequence[tuple[int, ...]],
    ) -> None:
        self._items = items
        self._weights = weights
        self._by_category = by_category
        self._company = company
        self._all = list(accumulate(weights))
        self._shelves: dict[str, list[float]] = {}

    def basket(self, favourite: str, rng: random.Random) -> list[int]:
        """Places of what is bought, each once."""
        basket = [self._one(favourite if rng.random() < 0.35 else "", rng)]
        while len(basket) < BASKET_MAX and rng.random() < MORE:
            more = self._next(basket, rng)
            if more not in basket:
                basket.append(more)
        return basket

    def _next(self, basket: list[int], rng: random.Random) -> int:
        near = [one for one in self._company[basket[-1]] if self._weights[one] > 0]
        if near and rng.random() < COMPANY:
            return near[rng.randrange(len(near))]
        return self._one("", rng)

    def _one(self, category: str, rng: random.Random) -> int:
        if category:
            places = self._by_category[category]
            sums = self._shelves.get(category)
            if sums is None:
                sums = list(accumulate(self._weights[place] for place in places))
                self._shelves[category] = sums
            if sums[-1] > 0:
                return places[bisect(sums, rng.random() * sums[-1], 0, len(places) - 1)]
        return bisect(self._all, rng.random() * self._all[-1], 0, len(self._all) - 1)


def _by_category(items: Sequence[Item]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        found.setdefault(item.category, []).append(place)
    return found


def _shoppers(
    size: SeedSize, items: Sequence[Item], rng: random.Random, seed: int
) -> list[_Shopper]:
    """Those who can sign in are regulars; of the others half were there from the beginning."""
    categories = sorted({item.category for item in items})
    found = [
        _Shopper(account.id, REGULAR, 0, rng.choice(categories))
        for account in ACCOUNTS
        if "admin" not in account.roles
    ]
    found += [
        _Shopper(
            customer_id=person.id,
            weight=person.weight,
            since=0 if rng.random() < 0.5 else rng.randrange(size.days),
            favourite=rng.choice(categories),
        )
        for person in customers(size.customers, seed)
    ]
    return found


def _popularity(items: Sequence[Item], rng: random.Random) -> list[float]:
    """A few sell much and very many a little; what is dear sells less."""
    usual = sorted(item.price for item in items)[len(items) // 2] or 1
    return [
        item.popularity**HEAD * rng.lognormvariate(0, 0.4) * max(0.2, item.price / usual) ** -0.35
        for item in items
    ]


def _trends(items: Sequence[Item], days: int, rng: random.Random) -> tuple[list[float], list[int]]:
    """By how much each grows a day, and on which day it began to be sold."""
    rises = [math.exp(rng.gauss(0.0, 0.45) / days) for _ in items]
    begins = [max(0, days - math.floor(item.age_days)) for item in items]
    if min(begins) > 0:
        begins[0] = 0  # something is sold on the first day, however few there are
    return rises, begins


def _promotions(items: Sequence[Item], days: int, rng: random.Random) -> list[_Promotion]:
    found: list[_Promotion] = []
    day = rng.randrange(3, PROMOTION_EVERY_DAYS + 3)
    while day < days:
        products = frozenset(rng.randrange(len(items)) for _ in range(1 + len(items) // 60))
        last = day + rng.randrange(1, 4)
        found.append(
            _Promotion(day, last, products, rng.uniform(3.0, 7.0), rng.choice((0.1, 0.15, 0.25)))
        )
        day += rng.randrange(PROMOTION_EVERY_DAYS - 4, PROMOTION_EVERY_DAYS + 5)
    return found


def _season(category: str, on: date) -> float:
    """Each category has its months; before the end of the year everything sells better."""
    peak = crc32(category.encode()) % 365
    turn = math.cos(2 * math.pi * (on.timetuple().tm_yday - peak) / 365)
    gifts = 1.3 if on.month == 12 and on.day <= 23 else 1.0
    return (1 + 0.35 * turn) * gifts


def _poisson(mean: float, rng: random.Random) -> int:
    """How many come when so many are expected; by the normal curve where there are many."""
    if mean > 30:
        return max(0, round(rng.gauss(mean, 1.15 * math.sqrt(mean))))
    limit, count, product = math.exp(-mean), 0, rng.random()
    while product > limit:
        count += 1
        product *= rng.random()
    return count


def _moment(on: date, rng: random.Random) -> datetime:
    hour = rng.choices(range(24), HOURS)[0]
    return datetime(
        on.year, on.month, on.day, hour, rng.randrange(60), rng.randrange(60), tzinfo=UTC
    )


def _line(item: Item, discount: float, rng: random.Random) -> PastLine:
    chance = rng.random()
    quantity = next(count for share, count in QUANTITIES if chance < share)
    price = max(1, round(item.price * (1 - discount)))
    return PastLine(item.id, quantity, price, item.name, item.category)


def _status(age_days: int, rng: random.Random) -> PastStatus:
    chance = rng.random()
    if chance < 0.025:
        return "refused"
    if chance < 0.055:
        return "cancelled"
    return "shipped" if age_days > SHIPPED_AFTER_DAYS else "paid"
