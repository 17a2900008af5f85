"""Records as tables for other programs: CSV, Parquet and flat JSON lines."""
