"""Log-mel filterbank features: one specification, two implementations that agree within 1e-3 nat.

`spec` describes the features, `scipy_log_mel` computes them for extraction (no torch), and
`torch_log_mel` computes them on a device from raw audio and exports to ONNX.
"""

from voxsrc.features.spec import PRESETS, FbankSpec, preset

__all__ = ["PRESETS", "FbankSpec", "preset"]
