"""A finished run: its folder, opening it, embedding with it, evaluating it. Nothing here imports Lightning."""
