"""What `products` keeps.

`number` is the order in which products were made and the key of the search; `id` is what the world
knows. A product that is removed stays as a row, because orders and the books of the stock name it.
`words` is what a search looks through, already in the form of `words.py`, so that SQLite and
PostgreSQL index the same.

The counts in `stock` are sums over `movements`: each change writes both in one transaction, and
`books.py` compares them.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from headgate_shop.queue import outbox_table

__all__ = [
    "CARRIED",
    "CATEGORIES",
    "FAULTS",
    "JOBS",
    "METADATA",
    "MOVEMENTS",
    "OUTBOX",
    "PRODUCTS",
    "PURGES",
    "RESERVATIONS",
    "RESERVED",
    "STOCK",
]

METADATA: Final = sa.MetaData()
NUMBER: Final = sa.BigInteger().with_variant(
    sa.Integer(), "sqlite"
)  # SQLite counts up Integer only
SORTED: Final = sa.String(400).with_variant(sa.String(400, collation="C"), "postgresql")

CATEGORIES: Final = sa.Table(
    "categories",
    METADATA,
    sa.Column("slug", sa.String(60), primary_key=True),
    sa.Column("name", sa.String(80), nullable=False),
)

PRODUCTS: Final = sa.Table(
    "products",
    METADATA,
    sa.Column("number", NUMBER, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("category", sa.String(60), sa.ForeignKey("categories.slug"), nullable=False),
    sa.Column("brand", sa.String(80), nullable=False),
    sa.Column("price", sa.Integer, nullable=False),
    sa.Column("currency", sa.String(3), nullable=False),
    sa.Column("featured", sa.Boolean, nullable=False),
    sa.Column("rating_tenths", sa.Integer, nullable=False),  # 0: nobody has rated it
    sa.Column("standing", sa.Integer, nullable=False),  # how well it sells, in thousandths
    sa.Column("images", sa.JSON, nullable=False),  # the first one is shown in lists
    sa.Column("folded", SORTED, nullable=False),
    sa.Column("words", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("updated_ms", sa.BigInteger, nullable=False),
    sa.Column("removed_ms", sa.BigInteger),
    sa.Index("ix_products_category", "category", "number"),
    sa.Index("ix_products_price", "price", "number"),
    sa.Index("ix_products_created", "created_ms", "number"),
    sa.Index("ix_products_folded", "folded", "number"),
)

STOCK: Final = sa.Table(
    "stock",
    METADATA,
    sa.Column("product_id", sa.String(64), sa.ForeignKey("products.id"), primary_key=True),
    sa.Column("received", sa.Integer, nullable=False),
    sa.Column("sold", sa.Integer, nullable=False),
    sa.Column("reserved", sa.Integer, nullable=False),
    # The last line of defence: whatever a program does, nothing is sold that is not there.
    sa.CheckConstraint("received - sold - reserved >= 0", name="never_oversold"),
    sa.CheckConstraint("sold >= 0 AND reserved >= 0", name="never_negative"),
)

MOVEMENTS: Final = sa.Table(
    "movements",
    METADATA,
    sa.Column("number", NUMBER, primary_key=True, autoincrement=True),
    sa.Column("product_id", sa.String(64), sa.ForeignKey("products.id"), nullable=False),
    # received, counted | reserved, released, expired | sold, returned
    sa.Column("kind", sa.String(12), nullable=False),
    sa.Column("quantity", sa.Integer, nullable=False),
    sa.Column("reservation_id", sa.String(80)),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Index("ix_movements_product", "product_id", "number"),
    sa.Index("ix_movements_reservation", "reservation_id"),
)

RESERVATIONS: Final = sa.Table(
    "reservations",
    METADATA,
    sa.Column("id", sa.String(80), primary_key=True),
    sa.Column("state", sa.String(12), nullable=False),  # held | sold | expired | ended
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("expires_ms", sa.BigInteger, nullable=False),
    sa.Column("settled_ms", sa.BigInteger),
    sa.Index("ix_reservations_due", "state", "expires_ms"),
)

RESERVED: Final = sa.Table(
    "reserved_lines",
    METADATA,
    sa.Column("reservation_id", sa.String(80), sa.ForeignKey("reservations.id"), primary_key=True),
    sa.Column("product_id", sa.String(64), sa.ForeignKey("products.id"), primary_key=True),
    sa.Column("quantity", sa.Integer, nullable=False),
    # As it was when it was reserved: that is what the customer has agreed to.
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("price", sa.Integer, nullable=False),
    sa.Column("currency", sa.String(3), nullable=False),
    sa.Column("category", sa.String(60), nullable=False),
    sa.Column("image", sa.String(200), nullable=False),
)

CARRIED: Final = "carried forward"
"""The reservation that stands for all those that were sold long ago. No client can name it: ids
have no blanks."""

PURGES: Final = sa.Table(
    "purges",
    METADATA,
    sa.Column("number", NUMBER, primary_key=True, autoincrement=True),
    sa.Column("tags", sa.JSON, nullable=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
)

JOBS: Final = sa.Table(
    "import_jobs",
    METADATA,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("state", sa.String(12), nullable=False),  # waiting | running | done | failed
    sa.Column("format", sa.String(8), nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("read_bytes", sa.BigInteger, nullable=False),
    sa.Column("records", sa.Integer, nullable=False),
    sa.Column("created", sa.Integer, nullable=False),
    sa.Column("updated", sa.Integer, nullable=False),
    sa.Column("faults", sa.Integer, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("worker", sa.String(40), nullable=False),
    sa.Column("lease_ms", sa.BigInteger, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("ended_ms", sa.BigInteger),
)

FAULTS: Final = sa.Table(
    "import_faults",
    METADATA,
    sa.Column("job_id", sa.String(40), sa.ForeignKey("import_jobs.id"), primary_key=True),
    sa.Column("line", sa.Integer, primary_key=True),
    sa.Column("detail", sa.Text, nullable=False),
)

OUTBOX: Final = outbox_table(METADATA)
