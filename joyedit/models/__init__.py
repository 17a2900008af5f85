"""The networks of JoyAI-Image-Edit in plain torch, one concept a file."""
