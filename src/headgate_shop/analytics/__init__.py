"""What was looked at, put into carts and bought: sums kept up to date, and what goes together."""
