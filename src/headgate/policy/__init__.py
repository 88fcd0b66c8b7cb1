"""Pure state machines: one policy a file, with its spec and its answers. No clock, no socket."""
