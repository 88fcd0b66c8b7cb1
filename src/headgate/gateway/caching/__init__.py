"""The gateway's cache of responses: under which names they are kept, and where."""
