"""Run an exported detector on an image: python examples/run_exported.py exported photo.jpg

Needs NumPy, OpenCV, Pillow and onnxruntime or openvino; neither torch nor Detectron2.
"""

import sys

from resnet_det.deploy import Detector

detector = Detector(sys.argv[1])
found = detector(detector.read_image(sys.argv[2]))
for name, score, (left, top, right, bottom) in zip(found.class_names, found.scores, found.boxes, strict=True):
    if score >= 0.5:
        print(f"{name} {score:.2f} at {left:.0f}, {top:.0f} to {right:.0f}, {bottom:.0f}")
