"""Figures of the business for `/metrics`, where the gateway's history and alerts find them."""

from __future__ import annotations

from headgate import observe
from headgate_shop.analytics.keeping import Counted
from headgate_shop.analytics.reading import Totals
from headgate_shop.analytics.reckoning import Sold

__all__ = ["Figures"]


class Figures:
    """Counts as things happen, and what today looks like so far."""

    def __init__(self, registry: observe.Registry = observe.REGISTRY) -> None:
        self._business = observe.Business(registry)
        self._conversion = registry.gauge(
            "shop_conversion_ratio", "Orders of today for each visitor of today."
        )
        self._average = registry.gauge(
            "shop_average_order_eur", "What an order of today is worth on average."
        )
        self._today = registry.gauge("shop_today", "Sums of today, from midnight UTC.", ("what",))

    def sold(self, sold: Sold, sign: int) -> None:
        if sign > 0:
            self._business.count("shop_orders", 1)
            self._business.count("shop_revenue_eur", sold.total / 100)
            self._business.count("shop_units_sold", sum(line.quantity for line in sold.lines))
            self._business.measure("shop_order_eur", sold.total / 100)
        elif sign < 0:
            self._business.count("shop_orders_cancelled", 1)
            self._business.count("shop_revenue_cancelled_eur", sold.total / 100)

    def seen(self, counted: Counted) -> None:
        self._business.count("shop_events", counted.events)
        self._business.count("shop_visits", counted.visits)
        self._business.count("shop_carts", counted.carts)
        self._business.count("shop_checkouts", counted.checkouts)

    def registered(self) -> None:
        self._business.count("shop_registrations", 1)

    def today(self, totals: Totals) -> None:
        self._conversion.set(totals.conversion)
        self._average.set(totals.average_order / 100)
        for what, value in (
            ("orders", totals.orders),
            ("units", totals.units),
            ("revenue_eur", totals.revenue / 100),
            ("visitors", totals.visitors),
            ("carts", totals.carts),
        ):
            self._today.labels(what=what).set(value)
