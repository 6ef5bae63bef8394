"""From annotation files to batches: data sets by name, their dicts, and loaders."""
