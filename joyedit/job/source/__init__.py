"""Manifests, folders, standard input and recipes become items."""
