"""Makes the files beside it, with NumPy 2. Run it in this folder."""
import json
import warnings

import numpy as np
from numpy.lib import format as fmt

EXTREMES = {
    "b1": [False, True],
    "f2": [0.0, -0.0, 1.5, 65504.0, 6e-8, -np.inf, np.nan],
    "f4": [0.0, -0.0, 1.5, np.finfo("f4").max, 1e-45, -np.inf, np.nan],
    "f8": [0.0, -0.0, 1.5, np.finfo("f8").max, 5e-324, -np.inf, np.nan],
}
for kind in "iu":
    for size in "1248":
        i = np.iinfo(kind + size)
        EXTREMES[kind + size] = [0, 1, i.min, i.max]
for kind, values in EXTREMES.items():
    np.save(kind + ".npy", np.array(values, kind))

cube = np.arange(24).reshape(2, 3, 4)
np.save("c_order.npy", cube.astype("f4"))
np.save("fortran.npy", np.asfortranarray(cube.astype("f4")))
np.save("fortran_big.npy", np.asfortranarray(cube.astype(">i2")))
np.save("big.npy", np.array(EXTREMES["f8"], ">f8"))
np.save("scalar.npy", np.float64(3.5))
np.save("empty.npy", np.zeros((0, 3), "f4"))
np.save("complex.npy", np.array([1j]))
np.save("text.npy", np.array(["a"]))
np.save("date.npy", np.array(["2000-01-01"], "M8[D]"))
np.save("structured.npy", np.zeros(2, [("x", "f4"), ("y", "i4")]))
np.save("object.npy", np.array([None]), allow_pickle=True)
for version in (2, 3):
    with warnings.catch_warnings(), open(f"version{version}.npy", "wb") as f:
        warnings.simplefilter("ignore")
        fmt.write_array(f, cube.astype("f4"), (version, 0))

members = {"f": np.arange(3.0), "g": cube.astype("f4"), "epsilon": np.float64(0.1)}
np.savez("stored.npz", **members)
np.savez_compressed("deflated.npz", **members)

# Headers alone, so that large shapes cost nothing.
headers = []
for shape in [(), (0,), (1,), (7,), (123456789,), (3, 4), (0, 10**12), (10**15, 1), (2**62, 0, 3),
              *((1,) * n for n in range(17, 23)),
              (10,) * 16, (100,) * 12, (1,) * 64, (12345,) * 4, (2,) * 30]:
    for descr in ("|u1", "<f8"):
        class Sink:
            data = b""
            def write(self, b): self.data += b
        s = Sink()
        fmt.write_array_header_1_0(s, {"descr": descr, "fortran_order": False, "shape": shape})
        headers.append({"descr": descr, "shape": shape, "header": s.data.decode("latin1")})
json.dump(headers, open("headers.json", "w"), indent=0)
