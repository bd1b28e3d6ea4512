"""Configuration: the schema, reading it from files, and the objects that it stands for."""
