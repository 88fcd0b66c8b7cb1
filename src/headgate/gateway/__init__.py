"""The data plane: one worker's event loop, and what a request goes through in it."""
