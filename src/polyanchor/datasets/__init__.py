"""Data: from image files and tables to labelled items, official splits, batches and tensors.

Nothing is imported here: :mod:`polyanchor.datasets.sources` opens a data set, :mod:`polyanchor.datasets.samplers`
decides the batches, :mod:`polyanchor.datasets.loading` reads them.
"""
