"""The rules of HTTP caching (RFC 9111 and its kin), without any I/O.

For the gateway's cache, which is shared, and for services that answer conditional requests.
"""
