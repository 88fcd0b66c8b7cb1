"""The load generators: wrk, h2load and our own for what these two cannot do."""

from __future__ import annotations
