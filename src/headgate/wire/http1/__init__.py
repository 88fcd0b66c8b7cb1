"""HTTP/1.1 framing rules (RFC 9112), pure: bytes in, values out, for both sides of the gateway.

One rule set judges clients and instances alike, so that no two parsers inside the gateway can
disagree about where a message ends.
"""
