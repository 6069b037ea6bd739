"""Results for human eyes: tables and curves."""
