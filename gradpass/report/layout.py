"""Where the boxes of a drawing stand and which way its links run: in rows, the path straight down the middle.

A row holds few boxes, so that a drawing is no wider than a page; a layer with more takes several rows. A link that
passes a row has a slot there, shared by all links from one box or to one box, so that no link runs over a box.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

IN_A_ROW = 5  # boxes, with that of the spine
GAP_X, GAP_Y = 16.0, 40.0
SLOT, SLOT_GAP = 4.0, 5.0  # the width of a link that passes a row, and the space between two of them
SWEEPS = 6
MARGIN = 8.0

Point = tuple[float, float]
Pair = tuple[int, int]
Bus = tuple[int, Literal["out", "in"]]  # a box, and whether its links share their slots where they leave or arrive


@dataclass
class Item:
    """What takes room in a row: a box, or a slot of links from (`out`) or to (`in`) that box."""

    box: int
    width: float
    kind: Literal["box", "out", "in"] = "box"
    x: float = 0.0
    near: list[Item] = field(default_factory=list)

    @property
    def gap(self) -> float:
        """The space that it wants beside it."""
        return GAP_X if self.kind == "box" else SLOT_GAP


@dataclass(frozen=True)
class Layout:
    """The middle of each box's upper edge, the points of each link from box to box, and the size of it all."""

    places: list[Point]
    routes: dict[Pair, list[Point]]
    width: float
    height: float


def arrange(sizes: list[Point], links: list[Pair], spine: int) -> Layout:
    """A layout of boxes of these sizes; the first `spine` ones are the path, in its order."""
    forward = _acyclic(len(sizes), links)
    rows = _rows(_layers(len(sizes), forward, spine))
    row_of = {box: number for number, row in enumerate(rows) for box in row}
    items = [[Item(box, sizes[box][0]) for box in row] for row in rows]
    boxes = {item.box: item for row in items for item in row}
    buses = _buses(forward, spine)
    slots: dict[tuple[Bus, int], Item] = {}
    for (start, end), bus in buses.items():
        chain = [boxes[start]]
        for number in range(row_of[start] + 1, row_of[end]):
            slot = slots.get((bus, number))
            if slot is None:
                slot = slots[bus, number] = Item(bus[0], SLOT, bus[1])
                items[number].append(slot)
            chain.append(slot)
        chain.append(boxes[end])
        for one, next_one in pairwise(chain):
            one.near.append(next_one)
            next_one.near.append(one)
    for sweep in range(SWEEPS):
        for row in items if sweep % 2 == 0 else reversed(items):
            _place(row, _middle(row, spine))
    return _measured(sizes, links, items, boxes, slots, buses, row_of)


def _buses(forward: list[Pair], spine: int) -> dict[Pair, Bus]:
    """With whom each link shares its slots: with those that leave where it leaves, or arrive where it arrives."""
    leaving, arriving = Counter(start for start, _ in forward), Counter(end for _, end in forward)
    return {
        (start, end): (start, "out") if end == start + 1 < spine or leaving[start] >= arriving[end] else (end, "in")
        for start, end in forward
    }


def _acyclic(count: int, links: list[Pair]) -> list[Pair]:
    """The links, those turned round that would close a circle: not the path's own, whose boxes come first."""
    after: dict[int, list[int]] = defaultdict(list)
    open_ends = [0] * count
    for start, end in links:
        after[start].append(end)
        open_ends[end] += 1
    order: dict[int, int] = {}
    left = dict.fromkeys(range(count))
    while left:
        free = next((box for box in left if open_ends[box] == 0), None)
        # In a circle the path goes first, from its beginning: the numbers of its boxes are the lowest.
        box = next(iter(left)) if free is None else free
        del left[box]
        order[box] = len(order)
        for end in after[box]:
            open_ends[end] -= 1
    turned = (pair if order[pair[0]] < order[pair[1]] else pair[::-1] for pair in links if pair[0] != pair[1])
    return list(dict.fromkeys(turned))


def _layers(count: int, forward: list[Pair], spine: int) -> list[int]:
    """For each box its layer: behind all that it reads, and what reads nothing just before what reads it."""
    layer = [0] * count
    for _ in range(count):
        before = list(layer)
        for start, end in forward:
            layer[end] = max(layer[end], layer[start] + 1)
        if layer == before:
            break
    fed = {end for _, end in forward}
    for box in range(spine, count):
        ends = [layer[end] for start, end in forward if start == box]
        if box not in fed and ends:
            layer[box] = min(ends) - 1
    lowest = min(layer)
    return [number - lowest for number in layer]


def _rows(layers: list[int]) -> list[list[int]]:
    """The boxes of each row; the path's box of a layer is in the last of the layer's rows."""
    by_layer: dict[int, list[int]] = defaultdict(list)
    for box in reversed(range(len(layers))):
        by_layer[layers[box]].append(box)
    rows: list[list[int]] = []
    for number in sorted(by_layer):
        boxes = by_layer[number]
        first = len(boxes) % IN_A_ROW or IN_A_ROW
        rows.append(boxes[:first])
        rows += [boxes[i : i + IN_A_ROW] for i in range(first, len(boxes), IN_A_ROW)]
    return rows


def _middle(row: list[Item], spine: int) -> Item | None:
    """What stands in the middle of a row: the path's box, or the link of the path that passes."""
    of_path = [item for item in row if item.box < spine and item.kind != "in"]
    return min(of_path, key=lambda item: (item.kind != "box", -item.box), default=None)


def _place(row: list[Item], middle: Item | None) -> None:
    """Puts a row's items to the left and the right of its middle, each on the side where what it is linked to is."""
    others = [item for item in row if item is not middle]
    wish = {id(item): sum(n.x for n in item.near) / len(item.near) if item.near else item.x for item in others}
    others.sort(key=lambda item: (wish[id(item)], item.box))
    # As many boxes on both sides, so that the path stays in the middle; links pass on the side where they are.
    boxes = [item for item in others if item.kind == "box"]
    left = {id(item) for item in boxes[: len(boxes) // 2]}
    left |= {id(item) for item in others if item.kind != "box" and wish[id(item)] < 0}
    right_side = [item for item in others if id(item) not in left]
    left_side = [item for item in reversed(others) if id(item) in left]
    if middle is not None:
        middle.x = 0.0
    for side, direction in ((right_side, 1), (left_side, -1)):
        end, before = (middle.width / 2, middle) if middle is not None else (0.0, None)
        for item in side:
            end += item.width / 2 + (max(item.gap, before.gap) if before is not None else GAP_X / 2)
            item.x = direction * end
            end += item.width / 2
            before = item


def _measured(
    sizes: list[Point],
    links: list[Pair],
    items: list[list[Item]],
    boxes: dict[int, Item],
    slots: dict[tuple[Bus, int], Item],
    buses: dict[Pair, Bus],
    row_of: dict[int, int],
) -> Layout:
    """Coordinates from the upper left corner."""
    left = min(item.x - item.width / 2 for row in items for item in row) - MARGIN
    right = max(item.x + item.width / 2 for row in items for item in row) + MARGIN
    tops: list[float] = []
    heights: list[float] = []
    y = MARGIN
    for row in items:
        tops.append(y)
        heights.append(max(sizes[item.box][1] for item in row if item.kind == "box"))
        y += heights[-1] + GAP_Y
    places = [(boxes[box].x - left, tops[row_of[box]]) for box in range(len(sizes))]
    routes: dict[Pair, list[Point]] = {}
    for pair in links:
        first, last = pair if pair in buses else pair[::-1]
        x, top = places[first]
        points = [(x, top + sizes[first][1]), (x, top + heights[row_of[first]])]
        for number in range(row_of[first] + 1, row_of[last]):
            x = slots[buses[first, last], number].x - left
            points += [(x, tops[number]), (x, tops[number] + heights[number])]
        points.append(places[last])
        routes[pair] = points if first == pair[0] else points[::-1]
    return Layout(places, routes, right - left, y - GAP_Y + MARGIN)
