"""sp-telemetry: what each chapter and feature costs, where the agent fails, and proof that the numbers are complete."""

__version__ = "0.1.0"
