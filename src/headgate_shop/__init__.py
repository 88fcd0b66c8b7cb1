"""The reference platform: a shop of real services on Headgate, by its public API alone.

`headgate demo` starts all of it. Each folder is a service with its own process and database, but
for `base`, `queue` and `data`, which they share, and `stage`, which starts them.
"""

__all__: list[str] = []
