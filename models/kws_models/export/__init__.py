"""Weights to files: ONNX, TFLite, step files, quantised or not, and the folder around them."""
