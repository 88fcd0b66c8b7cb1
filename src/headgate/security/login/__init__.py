"""Browsers that log in with an identity provider: OpenID Connect, sessions in encrypted cookies.

    rules      what an operator may set, with the defaults
    flow       the authorization code flow with PKCE, as values
    sealing    what makes a cookie unreadable and unforgeable
    sessions   what a session holds, how long, and how it is cut into cookies
    mapping    from claims to an identity
    ended      sessions that were ended before their time
    renewing   one refresh of a session at a time
    signed     ID tokens and logout tokens
    provider   discovery, keys, token and userinfo endpoint
    pages      what a person sees when something went wrong
    method     all of it as a `Method`

Nothing is imported here: a service that wants none of it pays for none of it.
"""
