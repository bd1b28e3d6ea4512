"""Nearest neighbours: vectors in, :class:`polyanchor.types.Neighbours` out. No measures here."""
