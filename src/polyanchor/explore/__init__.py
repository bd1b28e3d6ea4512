"""A run's vectors as files that other people's viewers open."""
