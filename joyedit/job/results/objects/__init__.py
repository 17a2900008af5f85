"""Outputs on an object store: pictures and records below one address, with a state folder on the driver's machine."""
