"""Adapters of polystore: one module per kind of store, found by the core through the entry points `polystore.adapters`.

The core never imports this package, no adapter imports another, and nothing is imported here, so that an application
pays only for the stores it opens.
"""
