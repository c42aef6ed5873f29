"""Recordings of the real client; see README.md. `reading` opens them."""
