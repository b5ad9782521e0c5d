"""Frozen specs of a network, its data and its training, which decide a result, and the key they hash to."""
