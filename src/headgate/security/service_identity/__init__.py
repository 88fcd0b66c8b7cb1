"""Identities of services: their names, their files, and TLS that follows them.

What a gateway, a client and a sidecar have in common stands here. Who issues identities, and who
fetches them, is in `headgate.mesh.identity`.
"""
