"""Models and faces to rows of measurements: one module for each question."""
