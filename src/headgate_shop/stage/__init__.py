"""What starts the shop, keeps it running, and shows that it works: `headgate demo`.

The services know nothing of it. `client.Stage` is for tests and benchmarks.
"""

__all__: list[str] = []
