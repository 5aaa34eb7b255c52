"""Log-mel filterbank features: one specification, two implementations that agree within 1e-3 nat.

`spec` describes the features, `scipy_log_mel` computes them (no torch), and `torch_log_mel` is the front-end
of the ONNX models that take audio.
"""

from voxsrc.features.spec import PRESETS, FbankSpec, preset

__all__ = ["PRESETS", "FbankSpec", "preset"]
