"""The inner loops, in the fastest form that this interpreter has: viper on MicroPython with a native emitter, numpy on CPython
where it is installed, else plain Python. All give the same bits (tests/device/test_kernels.py); kernels_plain defines them.
"""

# ruff: noqa: F401, F403

import sys

if sys.implementation.name == "micropython":
    try:
        from triax.kernels_viper import *
        from triax.kernels_viper import NAME
    except SyntaxError:  # a build without native emitter, as the WebAssembly one: "invalid micropython decorator"
        from triax.kernels_plain import *
        from triax.kernels_plain import NAME
else:
    try:
        from triax.kernels_numpy import *
        from triax.kernels_numpy import NAME
    except ImportError:
        from triax.kernels_plain import *
        from triax.kernels_plain import NAME
