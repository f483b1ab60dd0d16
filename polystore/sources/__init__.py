"""Records in files: what `Collection.import_many` reads from CSV, JSON lines and Parquet, and what `export` writes.

    await notes.import_many(FileSource(Note, "notes.csv"), resume="notes.csv")
    await export(notes.stream(), Note, "notes.parquet")

Every type of a field has one form in each format, so that what was exported comes back equal; `rows.py` has them.
"""

from polystore.sources.formats import FORMATS, Format
from polystore.sources.reading import FileSource
from polystore.sources.writing import export

__all__ = ["FORMATS", "FileSource", "Format", "export"]
