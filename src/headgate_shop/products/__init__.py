"""Products: the catalogue, its search, its images and what is in stock.

`products` and its canary `products-next` are this code on one database. Reads are public and kept
by tags, here and at the gateway; an edit has both forget what it changes. Stock is a ledger of
movements, and reservations hold goods for a checkout without selling one twice.
"""

__all__: list[str] = []
