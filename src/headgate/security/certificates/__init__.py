"""Certificates that make and renew themselves, and the check of those that are served.

`ca` issues from the authority of one's own. `acme` holds the rules of RFC 8555, `client` speaks
it; `renewal` says when, `claims` whose turn it is, `store` keeps the files, `challenges` is what
workers show to the authority.
`check` looks at a server from outside.
"""
