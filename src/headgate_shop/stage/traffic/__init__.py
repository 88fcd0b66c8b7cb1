"""Made-up visitors: they browse, search, look, fill carts, and some of them buy."""

__all__: list[str] = []
