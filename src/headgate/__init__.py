"""Headgate: the production layer for services.

The package is a house of rooms that can be used alone: `headgate.config` reads the file,
`headgate.testing` holds the fakes that our own tests use. Importing `headgate` loads none of
them.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
