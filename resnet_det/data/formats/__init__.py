"""Other layouts on their way to COCO annotation files."""
