"""Carts, checkout and orders: what is bought is neither lost nor bought twice."""
