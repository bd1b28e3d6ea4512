"""Data: from image files and tables to labelled items, official splits, batches and tensors.

Nothing is imported here: :mod:`polyanchor.data.sources` opens a data set, :mod:`polyanchor.data.sampling`
decides the batches, :mod:`polyanchor.data.dataset` reads them.
"""
