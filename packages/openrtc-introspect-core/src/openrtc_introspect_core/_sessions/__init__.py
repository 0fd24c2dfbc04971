"""Sessions: their identity, their scope, and those that are live."""
