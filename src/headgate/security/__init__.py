"""Who asks, whether they may, and what is kept from whom: for the gateway and for services."""
