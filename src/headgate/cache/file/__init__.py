"""A second layer in a file, for the processes of one machine: no server to run.

An SQLite database in WAL mode on a local disk (not on a network drive: locks do not hold there).
"""

from headgate.cache.file.layer import FileLayer
from headgate.cache.file.opening import open_layer

__all__ = ["FileLayer", "open_layer"]
