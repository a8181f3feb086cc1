"""The heads: one folder each, found by name through the ``ovperception.heads`` entry points."""
