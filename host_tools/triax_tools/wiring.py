"""Wiring diagrams: a board and a part from hardware/, as SVG."""

from html import escape

from triax_tools.hardware import board, part_class, part_pins

__all__ = ["connections", "svg"]

_COLOURS = {
    "vcc": "#c0392b",
    "gnd": "#2c3e50",
    "sck": "#e67e22",
    "mosi": "#2980b9",
    "miso": "#27ae60",
    "select": "#8e44ad",
    "ready": "#7f8c8d",
    "scl": "#e67e22",
    "sda": "#2980b9",
}
_WIRES = {"spi": ("vcc", "gnd", "sck", "mosi", "miso", "select", "ready"), "i2c": ("vcc", "gnd", "scl", "sda", "ready")}
_ROW, _TOP, _LEFT, _RIGHT = 34, 78, 250, 520


def connections(board_name: str, part_name: str, bus: str = "", sensor: int = 0) -> list[tuple[str, str, str]]:
    """(signal, pin of the board, pin of the part) of each wire. `sensor`: 0 or 1, which chip select and interrupt line."""
    labels, pins = board(board_name)["labels"], part_pins(part_name)
    bus = bus or part_class(part_name).BUSES[0]
    wires = []
    for signal in _WIRES[bus]:
        label = labels[signal]
        wires.append((signal, label[sensor] if isinstance(label, list) else label, pins[signal]))
    return wires


def svg(board_name: str, part_name: str, bus: str = "") -> str:
    """The diagram of one sensor on a board."""
    wires = connections(board_name, part_name, bus)
    height = _TOP + _ROW * len(wires) + 30
    title = escape(f"{board(board_name)['title']} with {part_name.upper()}")
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 770 {height}" font-family="sans-serif" font-size="15">',
        f"<title>{title}</title>",
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="385" y="30" text-anchor="middle" font-size="18">{title}</text>',
        _box(40, _LEFT - 40, height, board_name),
        _box(_RIGHT, 210, height, part_pins(part_name)["board"]),
    ]
    for row, (signal, from_pin, to_pin) in enumerate(wires):
        y = _TOP + _ROW * row + 14
        lines += [
            f'<text x="{_LEFT - 12}" y="{y + 5}" text-anchor="end">{escape(from_pin)}</text>',
            f'<text x="{_RIGHT + 12}" y="{y + 5}">{escape(to_pin)}</text>',
            f'<line x1="{_LEFT}" y1="{y}" x2="{_RIGHT}" y2="{y}" stroke="{_COLOURS[signal]}" stroke-width="4"/>',
            f'<circle cx="{_LEFT}" cy="{y}" r="5" fill="{_COLOURS[signal]}"/>',
            f'<circle cx="{_RIGHT}" cy="{y}" r="5" fill="{_COLOURS[signal]}"/>',
            f'<text x="{(_LEFT + _RIGHT) // 2}" y="{y - 6}" text-anchor="middle" font-size="12" fill="#555">{signal}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def _box(x: int, width: int, height: int, name: str) -> str:
    box = f'<rect x="{x}" y="48" width="{width}" height="{height - 66}" rx="8" fill="#f4f6f7" stroke="#95a5a6"/>'
    short = escape(name if len(name) < 30 else name[:27] + "...")
    return f'{box}\n<text x="{x + width // 2}" y="68" text-anchor="middle" font-size="13">{short}</text>'
