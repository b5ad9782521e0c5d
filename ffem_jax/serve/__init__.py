"""The recognition server: a vector in, a name out. It imports the metrics and no decoder, so an image cannot get in."""
