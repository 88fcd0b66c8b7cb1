"""Services that find, trust and survive each other.

`registry` knows who serves what; a client, an identity and a sidecar build on it. Import what you
use from its own module: a service that only registers itself loads little.
"""
