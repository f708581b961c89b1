"""Tables of which the right ratio is known by region: made from nothing, or real rows with known damage."""
