"""What numbers of several seeds, queries and methods say, and how surely."""
