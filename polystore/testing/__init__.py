"""Tools to test stores and applications with: shipped with polystore, imported by nothing that ships."""
