"""Pages for people: tables, sentences, and the figures beside them."""
