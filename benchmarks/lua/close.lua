-- A connection a request: with TLS, a full handshake each.
wrk.headers["Connection"] = "close"
