"""Reports: the catalogue of queries, their parameters, and how the answers are shown."""
