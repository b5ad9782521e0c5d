"""One line per trial: written, read, and read as specs again."""
