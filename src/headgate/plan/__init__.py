"""From `Config` to what a request reads: the route table and each route's compiled policies.

Everything here is pure and built once per configuration; a reload builds a whole new plan and
swaps one reference.
"""
