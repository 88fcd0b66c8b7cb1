"""The registry: which instances each service has, who says so, and since when."""
