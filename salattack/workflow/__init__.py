"""Notebooks run by papermill, the manifest of a run, and its comparison."""
