"""From a spec to a record, and from a sweep to many."""
