"""How much of each product will be sold: forecasts with intervals, and what will run out."""
