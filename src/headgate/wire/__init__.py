"""Bytes on the wire: who is addressed, by whom, over what, and in which frames.

The files that hold rules (`host`, `target`, `forwarded`, the parsers) are pure: bytes in, values
out. Those that touch sockets (`connect`, `resolve`, `accept_with_proxy`) are thin rims over them.
"""
