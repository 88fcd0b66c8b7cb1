"""What the shop begins with: a catalogue, people, months of trade. The same seed gives the same.

Nothing here reads a clock or a file, so every service can make the part that it needs and they
agree: product `p-00001` and customer `c-00001` are the same ones everywhere.
"""

from __future__ import annotations

from headgate_shop.data.size import DEMO, TINY, SeedSize

__all__ = ["DEMO", "TINY", "SeedSize"]
