"""How the decisions of ``cpu.recurrent`` become a schedule, step by step."""

from __future__ import annotations

from typing import Any

from search_spaces.cpu.loops import in_registers, index_map, reduced_in_registers
from search_spaces.task import Parameters


class RecurrentSchedule:
    """Applies one set of parameters; each method is one step of the schedule.

    ``gates`` are those of each product of a step, ``lanes`` the elements of one vector.
    """

    def __init__(
        self, schedule: Any, gates: tuple[int, ...], lanes: int, parameters: Parameters
    ) -> None:
        self.sch, self.gates, self.lanes, self.p = schedule, gates, lanes, parameters
        self.width = lanes * int(parameters["vectors"])

    def run(self) -> None:
        sch = self.sch
        whole = sch.get_sblock("recurrence")
        for number in range(len(self.gates)):
            self._pack(whole, 1 + number)
        if self.p.get("share") == "directions":
            sch.parallel(sch.get_loops(whole)[0])
        blocks = sch.get_child_blocks(sch.get_sblock("step"))
        for product, following in zip(blocks[::2], blocks[1::2], strict=True):
            self._tile(product, following)
        for block in sch.get_child_blocks(sch.get_sblock("carry")):
            column = sch.get_loops(block)[-1]
            if int(sch.get(column).extent) % self.lanes == 0:
                sch.vectorize(sch.split(column, [None, self.lanes])[1])

    def _pack(self, whole: Any, argument: int) -> None:
        """Lay weights out as [direction][columns / width][depth][gate][width]."""
        width = self.width

        def panels(direction: Any, gate: Any, depth: Any, column: Any) -> list[Any]:
            return [direction, column // width, depth, gate, column % width]

        cached = self.sch.cache_read(whole, argument, "global")
        self.sch.transform_layout(whole, ("read", argument), index_map(self.sch, panels, 4))
        self.sch.annotate(cached, "meta_schedule.layout_rewrite_preproc", True)

    def _tile(self, product: Any, following: Any) -> None:
        """Panels of sums in registers, each used up by what follows before the next one."""
        sch, p = self.sch, self.p
        vectors = int(p["vectors"])
        row, column = sch.get_loops(following)[-2:]
        outer, rows = sch.split(row, [None, int(p["rows"])], preserve_unit_iters=True)
        panel, vector, lane = sch.split(
            column, [None, vectors, self.lanes], preserve_unit_iters=True
        )
        sch.reorder(panel, outer, rows, vector, lane)
        if p.get("share") == "columns":
            sch.parallel(panel)
        in_registers(sch, [rows, vector, lane])
        sch.set_scope(product, 0, "local")
        sch.compute_at(product, outer, preserve_unit_loops=True)
        rows, gate, column, depth = sch.get_loops(product)[-4:]
        vector, lane = sch.split(column, [vectors, self.lanes], preserve_unit_iters=True)
        depth, some = sch.split(depth, [None, int(p["unroll"])], preserve_unit_iters=True)
        reduced_in_registers(sch, product, [depth], [some], [rows, gate, vector, lane])
