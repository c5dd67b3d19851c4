"""HTTP in and out. Knows streams and their records, never an upstream."""
