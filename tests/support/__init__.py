"""What several test folders share: tiny checkpoints in the published layouts, and the reference."""
