"""Texts from outside, before a database or a person gets to see them."""

from __future__ import annotations

__all__ = ["known_id", "plain", "storable"]


def known_id(text: str) -> str:
    """An id as it may be asked for; text that can be none is the id of nobody."""
    return text if len(text) <= 32 and text.isascii() and text.isalnum() else ""


def storable(text: str, most: int = 320) -> str:
    """Text that every database takes: no NUL (PostgreSQL), no lone surrogates, not too long."""
    return text[:most].replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def plain(text: str, most: int) -> str:
    """Without what could do harm where it is shown: a user agent, in a list of sessions."""
    return "".join(char if char.isprintable() else " " for char in text[:most])
