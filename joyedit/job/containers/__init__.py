"""Files that hold many pictures: tar archives, Parquet files and Arrow files, here or behind a URL."""
