"""Rows and tensors to figures, tables and the report."""
