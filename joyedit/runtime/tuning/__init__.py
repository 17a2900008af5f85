"""What is measured or decided once for a device: kernels, compilation, and where that is kept."""
