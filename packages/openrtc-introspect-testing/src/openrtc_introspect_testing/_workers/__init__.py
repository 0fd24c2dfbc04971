"""Workers that serve what a test has written, and the golden frames."""
