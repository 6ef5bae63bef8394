"""How image files are read: one way for training, evaluation, pictures, checks and exported detectors.

Photographs by Pillow, TIFF files that Pillow does not read by tifffile, DICOM files by pydicom; the latter two are
imported when such a file is met (the extra ``medical``). Needs neither torch nor Detectron2.
"""
