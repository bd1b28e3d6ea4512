"""Networks that turn a batch of inputs into unit vectors."""
