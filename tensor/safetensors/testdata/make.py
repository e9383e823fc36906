"""Makes the files beside it, with safetensors. Run it in this folder."""
import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

arrays = {
    "f64": np.array([0.0, -0.0, 5e-324, np.finfo("f8").max, -np.inf, np.nan]),
    "f32": np.array([0.0, -0.0, 1e-45, np.finfo("f4").max, -np.inf, np.nan], "f4"),
    "f16": np.array([0.0, -0.0, 6e-8, 65504.0, -np.inf, np.nan], "f2"),
    "bf16": np.array([0.0, -0.0, 1.0, -2.0, -np.inf, np.nan], ml_dtypes.bfloat16),
    "bool": np.array([[True, False, True]]),
    "scalar": np.array(1.5, "f4"),
    "empty": np.zeros((0, 3), "f4"),
    "a \"quoted\" <näme>&\t\u2028": np.arange(6, dtype="f4").reshape(2, 3),
}
for kind in "iu":
    for size in "1248":
        i = np.iinfo(kind + size)
        arrays[kind + str(8 * int(size))] = np.array([0, 1, i.min, i.max], kind + size)
save_file(arrays, "types.safetensors")
save_file({"w": np.arange(3, dtype="f4")}, "metadata.safetensors", {"format": "<np>"})
save_file({}, "nothing.safetensors")
