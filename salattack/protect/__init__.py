"""Photos of one's own, protected."""
