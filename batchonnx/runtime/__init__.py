"""ONNX Runtime behind one seam: what a model is, its session, the cores it may use."""
