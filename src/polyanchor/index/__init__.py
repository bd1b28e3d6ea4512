"""Search with a trained embedding: an index on disk or on a Qdrant server, what it finds, how well."""

from polyanchor import _optional as _extras

_extras.load("pydantic", "train")  # what the rest imports at its top comes with the same extra
