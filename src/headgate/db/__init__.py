"""Databases behind services: what the drivers that they use leave open."""
