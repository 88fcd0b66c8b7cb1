"""The operations page: what goes on in the shop and what Headgate does about it, live, with a
button for each prepared failure.
"""
