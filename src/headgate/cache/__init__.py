"""One cache for objects, responses and everything that a tag can name.

Stands alone: what a service imports of it pulls in neither the gateway nor a Redis client.
"""
