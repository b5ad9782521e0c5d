"""Reports for readers: tables, sentences and figures."""
