"""Files to networks: which files (layouts), which names (names), strict loading (load)."""
