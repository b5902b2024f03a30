"""Exports of masked models: plain weights, condensed layers, tensor cores and ONNX."""
