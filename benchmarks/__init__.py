"""Measures polystore against what one would write by hand on the same drivers, in one run: `make bench`."""
