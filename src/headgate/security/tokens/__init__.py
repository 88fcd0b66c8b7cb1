"""JWT (RFC 7519): whose signature is believed, where the keys come from, what a token says.

Pure: `strict` (the encodings), `algorithms` and `keys` (one key, a set of them), `jwk` (how sets
are written down), `verify` (a token against a set), `identify` (its claims as an identity),
`cache` and `revocations`. At the rim: `source`, `remote` and `fetch`, which bring keys.
Nothing is imported here, because `rules` is read by whoever checks a configuration.
"""
