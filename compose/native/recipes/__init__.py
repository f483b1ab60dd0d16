"""A file for each kind of server."""
