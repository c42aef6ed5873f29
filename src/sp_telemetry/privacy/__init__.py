"""The privacy policy: one definition, rendered to SQL."""
