"""Text on its way out: names, numbers, tables, and whatever others chose."""
