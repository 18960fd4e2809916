"""Arclight's side of each race, by the functions its commands call."""
