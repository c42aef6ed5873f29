"""From git and paths to feature, chapter and step. Pure, but for reading git."""
