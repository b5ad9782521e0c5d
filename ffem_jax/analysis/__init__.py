"""Numbers from records: networks, frontiers, pairs, comparisons. Draws no figures and writes no pages."""
