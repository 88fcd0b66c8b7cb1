"""The sidecar: a worker beside one process, which speaks to the mesh for it in any language."""
