"""Draw the rooms of the two packages and the imports between them, as docs/images/rooms.svg.

    python tools/draw_rooms.py

A room is a file or folder directly in its package. It is drawn above all rooms that it imports from. Lines
that follow from other lines are left out.
"""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import networkx

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "rooms.svg"
PACKAGES = {"chrep_model": "#dbe9f6", "napari_chrep": "#e3f1dd"}
HEIGHT, GAP, FLOOR, LETTER = 26, 14, 66, 7.2  # px: box, between boxes, between floors, letter

Box = tuple[str, str]
"""Element of a floor: a room as (room, room), or a line (from, to) that passes the floor."""


def rooms() -> dict[str, str]:
    """Return the first line of the docstring of each room, by ``package.room``."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / "src" / package).iterdir()):
            file = path / "__init__.py" if path.is_dir() else path
            if file.suffix == ".py" and file.is_file() and not path.name.startswith("__"):
                found[f"{package}.{path.stem}"] = (ast.get_docstring(_parsed(file)) or "").split("\n")[0]
    return found


def imports(known: dict[str, str]) -> networkx.DiGraph:
    """Return the graph of the imports between rooms, including imports inside functions."""
    graph = networkx.DiGraph()
    graph.add_nodes_from(known)
    for package in PACKAGES:
        for file in sorted((ROOT / "src" / package).rglob("*.py")):
            parts = file.relative_to(ROOT / "src").with_suffix("").parts
            room = ".".join(parts[:2])
            for target in _imported(file, parts) if room in known else ():
                if target in known and target != room:
                    graph.add_edge(room, target)
    return graph


def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _imported(file: Path, parts: tuple[str, ...]) -> list[str]:
    """Return the rooms and other packages that a file imports from."""
    names: list[str] = []
    for node in ast.walk(_parsed(file)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = parts[: -node.level] if node.level else ()
            names += [".".join(filter(None, (*above, node.module, alias.name))) for alias in node.names]
    return [".".join(name.split(".")[:2]) for name in names]


def floors(graph: networkx.DiGraph) -> list[list[Box]]:
    """Return the boxes of each floor, the lowest first, ordered so that few lines cross."""
    level: dict[str, int] = {}
    for room in reversed(list(networkx.topological_sort(graph))):
        level[room] = 1 + max((level[below] for below in graph[room]), default=-1)
    for room in graph:  # a room without imports is drawn directly below its users
        if not graph[room]:
            level[room] = min((level[user] for user in graph.pred[room]), default=1) - 1
    house: list[list[Box]] = [[] for _ in range(max(level.values()) + 1)]
    lines: dict[Box, set[Box]] = {}
    for room in sorted(graph):
        house[level[room]].append((room, room))
        lines[room, room] = {*graph.in_edges(room), *graph.out_edges(room)}
    for line in sorted(graph.edges):
        lines[line] = {line}
        for floor in house[level[line[1]] + 1 : level[line[0]]]:
            floor.append(line)
    upwards = list(itertools.pairwise(house))
    downwards = list(itertools.pairwise(house[::-1]))
    for fixed, floor in [*downwards, *upwards] * 4:
        beside, now = _places(fixed), _places(floor)
        for box in floor:
            ends = [x for other, x in beside.items() if lines[box] & lines[other]]
            now[box] = sum(ends) / len(ends) if ends else now[box]
        floor.sort(key=lambda box: (now[box], box))
    return house


def _width(box: Box) -> float:
    return len(box[0].split(".")[1]) * LETTER + 20 if box[0] == box[1] else 2.0


def _places(floor: list[Box]) -> dict[Box, float]:
    """Return the horizontal position of each box of a floor, in px from the middle of the picture."""
    x = -(sum(map(_width, floor)) + GAP * (len(floor) - 1)) / 2
    places = {}
    for box in floor:
        places[box] = x + _width(box) / 2
        x += _width(box) + GAP
    return places


def draw() -> str:
    """Return the picture as SVG."""
    graph = networkx.transitive_reduction(imports(rooms()))
    house = floors(graph)
    wide = max(sum(map(_width, floor)) + GAP * (len(floor) + 1) for floor in house)
    high = FLOOR * len(house) + 40
    at = {
        (box, number): (wide / 2 + x, 44 + FLOOR * (len(house) - 1 - number))
        for number, floor in enumerate(house)
        for box, x in _places(floor).items()
    }
    level = {box[0]: number for (box, number) in at if box[0] == box[1]}
    parts = []
    for a, b in sorted(graph.edges):
        passed = [at[(a, b), number] for number in range(level[a] - 1, level[b], -1)]
        stops = [at[(a, a), level[a]], *passed, at[(b, b), level[b]]]
        path = f"M{stops[0][0]:.0f} {stops[0][1] + HEIGHT / 2:.0f}"
        for (x0, y0), (x1, y1) in itertools.pairwise(stops):
            middle = (y0 + y1) / 2
            path += f"C{x0:.0f} {middle:.0f} {x1:.0f} {middle:.0f} {x1:.0f} {y1 - HEIGHT / 2:.0f}"
            if (x1, y1) != stops[-1]:
                path += f"V{y1 + HEIGHT / 2:.0f}"
        parts.append(f'<path d="{path}" fill="none" stroke="#8a8f98"/>')
    for room, number in sorted(level.items()):
        (x, y), width = at[(room, room), number], _width((room, room))
        package, name = room.split(".")
        parts.append(
            f'<rect x="{x - width / 2:.0f}" y="{y - HEIGHT / 2:.0f}" '
            f'width="{width:.0f}" height="{HEIGHT}" rx="5" fill="{PACKAGES[package]}" stroke="#5b6470"/>'
            f'<text x="{x:.0f}" y="{y + 4:.0f}" text-anchor="middle">{name}</text>'
        )
    for number, (package, colour) in enumerate(PACKAGES.items()):
        parts.append(
            f'<rect x="12" y="{12 + 24 * number}" width="16" height="16" rx="3" fill="{colour}" '
            f'stroke="#5b6470"/><text x="34" y="{25 + 24 * number}">{package}</text>'
        )
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:.0f} {high:.0f}" '
        f'font-family="monospace" font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n'
        f"{body}\n</svg>\n"
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    print(PICTURE)
