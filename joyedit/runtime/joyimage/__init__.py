"""The real backend: three networks on one device."""
