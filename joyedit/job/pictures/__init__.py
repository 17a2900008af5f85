"""Pictures on their way in and out: decode, fit, colours, encode, metadata."""
