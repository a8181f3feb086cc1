"""Our models as other frameworks call theirs. Nothing here is imported before it is asked for."""
