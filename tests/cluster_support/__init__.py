"""What the cluster tests stand on: an installed operator, jobs of a tiny model, ways to disturb both."""
