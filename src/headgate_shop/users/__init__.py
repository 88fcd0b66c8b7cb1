"""Users: accounts, profiles, who signed in when, and a person's data in all of the shop's services.

Passwords, sessions, tokens and second factors are the business of `headgate.security.accounts`;
here is what a shop adds: a name and an address, messages to other services, an export of everything
and an erasure that does not rest until every service has forgotten the person.
"""

__all__: list[str] = []
