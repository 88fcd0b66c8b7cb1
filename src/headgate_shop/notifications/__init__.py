"""Notifications: mail to customers and to the shop's staff, from what services say in the queue."""

__all__: list[str] = []
