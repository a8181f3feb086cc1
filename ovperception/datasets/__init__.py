"""Data sets: the procedural world `scenes` and readers of the common formats."""
