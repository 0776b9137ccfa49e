# my_kernels/few_rows.py
"""Matrix products of a few rows: all of them stay in registers while the weights pass by once."""

from optuna.distributions import CategoricalDistribution

from search_spaces.base import SearchSpace

MOST_ROWS = 8
COLUMNS, STEPS = (16, 32, 64, 128), (1, 2, 4, 8)


class FewRows(SearchSpace):
    """Chooses how many columns a thread computes at a time, and how far it unrolls."""

    name = "my.few_rows"
    version = 1
    priority = 50  # its default comes before those of the other spaces that match

    def matches(self, task, target):
        work = task.workload
        if target.kind != "llvm" or len(work.blocks) != 1:
            return False
        (block,) = work.blocks
        if [axis.reduced for axis in block.axes] != [False, False, True]:
            return False
        rows, columns = block.axes[0].extent, block.axes[1].extent
        product = [read.dims for read in block.reads] == [((0,), (2,)), ((2,), (1,))]
        plain = all(tensor.dtype == "float32" for tensor in work.arguments)
        return product and plain and rows <= MOST_ROWS and columns % COLUMNS[0] == 0

    def parameters(self, task, target):
        block = task.workload.blocks[0]
        columns, depth = block.axes[1].extent, block.axes[2].extent
        return {
            "columns": CategoricalDistribution([c for c in COLUMNS if columns % c == 0]),
            "steps": CategoricalDistribution([s for s in STEPS if depth % s == 0]),
            "parallel": CategoricalDistribution([False, True]),
        }

    def default(self, task, target):
        block = task.workload.blocks[0]
        columns, depth = block.axes[1].extent, block.axes[2].extent
        return {
            "columns": 32 if columns % 32 == 0 else 16,
            "steps": 4 if depth % 4 == 0 else 1,
            "parallel": False,
        }

    def apply(self, schedule, task, target, parameters):
        columns = parameters["columns"]
        (product,) = schedule.get_child_blocks(schedule.get_sblock("root"))
        if 1 in task.workload.constants:  # weights: in panels, packed when the model is compiled
            panels = schedule.cache_read(product, 1, "global")
            schedule.transform_layout(
                product, ("read", 1), lambda k, j: (j // columns, k, j % columns)
            )
            schedule.annotate(panels, "meta_schedule.layout_rewrite_preproc", True)
        result = schedule.cache_write(product, 0, "local")
        row, column = schedule.get_loops(result)
        chunk, lane = schedule.split(column, [None, columns])
        schedule.reorder(chunk, row, lane)
        schedule.vectorize(lane)
        if parameters["parallel"]:
            schedule.parallel(chunk)
        schedule.compute_at(product, chunk, preserve_unit_loops=True)
        row, lane, depth = schedule.get_loops(product)[-3:]
        depth, step = schedule.split(depth, [None, parameters["steps"]])
        schedule.reorder(depth, step, row, lane)
        schedule.vectorize(lane)
        schedule.unroll(row)
        schedule.unroll(step)
        schedule.decompose_reduction(product, depth)
