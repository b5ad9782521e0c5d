"""Numbers from records: networks, frontiers, pairs, comparisons. No figure, no page."""
