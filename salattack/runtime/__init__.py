"""Where and how work runs: files, weights, downloads, devices, workers."""
