"""The same network in other libraries, with our weights copied into it."""
