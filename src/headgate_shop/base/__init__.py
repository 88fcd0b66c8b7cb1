"""What every service of the shop stands on: its settings, its database, its app."""
