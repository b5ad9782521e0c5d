"""Architecture search for small face-feature networks under a hard size limit.

Importing the package imports no JAX: specs, records, metrics and the frontier are
NumPy only, and each command imports the heavy parts where it uses them.
"""

__version__ = "0.1.0"
