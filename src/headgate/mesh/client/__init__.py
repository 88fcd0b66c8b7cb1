"""The mesh for Python services: calling others by name, registering oneself, functions as calls.

    from headgate.mesh import Mesh, register

    mesh = Mesh("headgate.yaml", name="orders")
    users = mesh.service("users")
    user = (await users.get("/users/42")).raise_for_status().json()

Balancing, breaker, retries and their budget, deadlines and hedging are the gateway's, by the same
file. Import from `headgate.mesh`, which loads what is used.
"""
