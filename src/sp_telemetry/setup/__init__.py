"""An installation's life: the background service, settings, and what the doctor looks at."""
