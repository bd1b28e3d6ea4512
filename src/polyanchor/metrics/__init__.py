"""From neighbours and labels to measures: hits and gains per rank, one value per query, the report."""
