"""Categories, products and their search, stock and its ledger, purges, imports, the outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from headgate_shop.queue import outbox_table

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
SORTED = sa.String(400).with_variant(sa.String(400, collation="C"), "postgresql")


def upgrade() -> None:
    _catalogue()
    _search()
    _stock()
    op.create_table(
        "purges",
        sa.Column("number", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )
    _imports()
    outbox_table(sa.MetaData()).create(op.get_bind())


def _catalogue() -> None:
    op.create_table(
        "categories",
        sa.Column("slug", sa.String(60), primary_key=True),
        sa.Column("name", sa.String(80), nullable=False),
    )
    op.create_table(
        "products",
        sa.Column("number", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("category", sa.String(60), sa.ForeignKey("categories.slug"), nullable=False),
        sa.Column("brand", sa.String(80), nullable=False),
        sa.Column("price", sa.Integer, nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("featured", sa.Boolean, nullable=False),
        sa.Column("rating_tenths", sa.Integer, nullable=False),
        sa.Column("standing", sa.Integer, nullable=False),
        sa.Column("images", sa.JSON, nullable=False),
        sa.Column("folded", SORTED, nullable=False),
        sa.Column("words", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
        sa.Column("removed_ms", sa.BigInteger),
    )
    op.create_index("ix_products_category", "products", ["category", "number"])
    op.create_index("ix_products_price", "products", ["price", "number"])
    op.create_index("ix_products_created", "products", ["created_ms", "number"])
    op.create_index("ix_products_folded", "products", ["folded", "number"])


def _search() -> None:
    """One text a product, indexed by what the database has for it."""
    if op.get_bind().dialect.name != "sqlite":
        op.execute(
            "ALTER TABLE products ADD COLUMN searched tsvector"
            " GENERATED ALWAYS AS (to_tsvector('simple', words)) STORED"
        )
        op.execute("CREATE INDEX ix_products_searched ON products USING gin (searched)")
        return
    op.execute(
        "CREATE VIRTUAL TABLE products_words USING fts5("
        "words, content='products', content_rowid='number', tokenize='unicode61', prefix='2 3')"
    )
    # An index that keeps no text of its own has to be told what it is to forget.
    forget = (
        "INSERT INTO products_words(products_words, rowid, words)"
        " VALUES ('delete', old.number, old.words);"
    )
    learn = "INSERT INTO products_words(rowid, words) VALUES (new.number, new.words);"
    op.execute(f"CREATE TRIGGER products_in AFTER INSERT ON products BEGIN {learn} END")
    op.execute(f"CREATE TRIGGER products_out AFTER DELETE ON products BEGIN {forget} END")
    op.execute(
        "CREATE TRIGGER products_edited AFTER UPDATE OF words ON products"
        f" BEGIN {forget} {learn} END"
    )


def _stock() -> None:
    op.create_table(
        "stock",
        sa.Column("product_id", sa.String(64), sa.ForeignKey("products.id"), primary_key=True),
        sa.Column("received", sa.Integer, nullable=False),
        sa.Column("sold", sa.Integer, nullable=False),
        sa.Column("reserved", sa.Integer, nullable=False),
        sa.CheckConstraint("received - sold - reserved >= 0", name="never_oversold"),
        sa.CheckConstraint("sold >= 0 AND reserved >= 0", name="never_negative"),
    )
    op.create_table(
        "movements",
        sa.Column("number", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("product_id", sa.String(64), sa.ForeignKey("products.id"), nullable=False),
        sa.Column("kind", sa.String(12), nullable=False),
        sa.Column("quantity", sa.Integer, nullable=False),
        sa.Column("reservation_id", sa.String(80)),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_movements_product", "movements", ["product_id", "number"])
    op.create_index("ix_movements_reservation", "movements", ["reservation_id"])
    op.create_table(
        "reservations",
        sa.Column("id", sa.String(80), primary_key=True),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_ms", sa.BigInteger, nullable=False),
        sa.Column("settled_ms", sa.BigInteger),
    )
    op.create_index("ix_reservations_due", "reservations", ["state", "expires_ms"])
    op.create_table(
        "reserved_lines",
        sa.Column(
            "reservation_id", sa.String(80), sa.ForeignKey("reservations.id"), primary_key=True
        ),
        sa.Column("product_id", sa.String(64), sa.ForeignKey("products.id"), primary_key=True),
        sa.Column("quantity", sa.Integer, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("price", sa.Integer, nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("category", sa.String(60), nullable=False),
        sa.Column("image", sa.String(200), nullable=False),
    )


def _imports() -> None:
    op.create_table(
        "import_jobs",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("state", sa.String(12), nullable=False),
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
    op.create_table(
        "import_faults",
        sa.Column("job_id", sa.String(40), sa.ForeignKey("import_jobs.id"), primary_key=True),
        sa.Column("line", sa.Integer, primary_key=True),
        sa.Column("detail", sa.Text, nullable=False),
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS products_words")
    for table in (
        "outbox", "import_faults", "import_jobs", "purges", "reserved_lines", "reservations",
        "movements", "stock", "products", "categories",
    ):  # fmt: skip
        op.drop_table(table)
