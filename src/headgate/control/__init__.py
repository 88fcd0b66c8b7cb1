"""The processes of a running gateway, and what an operator says to them.

`supervisor` starts the others and keeps the listening sockets; `control_main` is the control
process with the admin API; `worker_main` wraps a gateway worker in a process. Nothing is
imported here: the supervisor must stay small, and each of the three loads only its own part.
"""
