"""Virtual parts, one file each, register by register from the data sheets and never from the drivers.

`names()` lists them by looking into this folder, so a new file is found by every test that walks the parts; `load(name)` gives
its class, which
every file calls `Twin`. `Twin(world, source, ppm=0.0, temperature_c=25.0)` is a part without a bus: attach it to a
`triax_sim.bus` bus.
"""

import sys

__all__ = ["load", "names"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from triax_sim.part import Part


def names() -> "list[str]":
    """Names of all virtual parts, sorted."""
    import pkgutil

    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> "type[Part]":
    """The class of a virtual part; ImportError names one that does not exist."""
    module = "triax_sim.chips." + name
    __import__(module)
    twin: type[Part] = sys.modules[module].Twin
    return twin
