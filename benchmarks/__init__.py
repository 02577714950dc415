"""Side-by-side measurements, each one command; no part of what is installed."""
