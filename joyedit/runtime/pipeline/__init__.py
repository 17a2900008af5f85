"""The threads and stages around the device. No torch here."""
