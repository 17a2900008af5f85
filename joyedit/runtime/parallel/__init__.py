"""One picture over several devices: who computes what, what they exchange, and how they act as one backend."""
