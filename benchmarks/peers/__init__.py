"""The peers: each does the race's job the way its own documentation shows."""
