"""What tests of exported detectors share."""

METADATA = {
    "outputs": ["boxes", "scores", "classes", "count", "masks"],
    "precision": "float32",
    "class_names": ["cat", "dog"],
    "category_ids": [3, 7],
    "input_format": "BGR",
    "min_size": 32,
    "max_size": 64,
}
