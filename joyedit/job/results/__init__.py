"""What a run leaves behind: output folder, lock, journal, fingerprint, report, and what reads them again."""
