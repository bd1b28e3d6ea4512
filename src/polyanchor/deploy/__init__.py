"""A trained model as a thing to use and to hand on: the embedder, its saved form, exports."""

from polyanchor import _optional as _extras

_extras.load("huggingface_hub", "train")  # what the rest imports at its top comes with the same extra
