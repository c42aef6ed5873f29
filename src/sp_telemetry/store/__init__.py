"""The store: the embedded engine, its schema, and the client that every reader uses."""
