"""Results for human eyes: tables, curves, and a page with all of it."""
