"""Models and data in, embeddings and retrieval reports out."""
