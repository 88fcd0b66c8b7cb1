"""Other companies, played: a shop platform, a marketplace, an accounting and a chat system.

Each speaks its own shape of API, with its own sign-in, limits and errors, and has bad days on
demand. What they are told they keep, as they would.
"""
