"""A 3x3 convolution of stride 1 written as Winograd's algorithm, with everything fused around it.

F(m x m, 3 x 3) of Lavin and Gray, "Fast algorithms for convolutional neural networks" (2016): the
image is cut into overlapping tiles of m + 2 pixels, tiles and kernels are transformed, and what was
a convolution is one product of matrices for each of the (m + 2)^2 points, of which m^2 pixels come
back. That is 2.25 times fewer multiplications for m = 2 and 4 times fewer for m = 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

from search_spaces.cpu.structure import Tiled, tiled
from search_spaces.task import Workload

Matrix = tuple[tuple[float, ...], ...]

BT: dict[int, Matrix] = {
    2: ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    4: (
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
}
G: dict[int, Matrix] = {
    2: ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)),
    4: (
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
}
AT: dict[int, Matrix] = {
    2: ((1, 1, 1, 0), (0, 1, -1, -1)),
    4: (
        (1, 1, 1, 1, 1, 0),
        (0, 1, -1, 2, -2, 0),
        (0, 1, 1, 4, 4, 0),
        (0, 1, -1, 8, -8, 1),
    ),
}


@dataclass(frozen=True)
class Image:
    """The convolution that is rewritten: ``rows`` x ``columns`` pixels come out of each image.

    ``data`` is the argument it reads, or None where a block before it pads the data; ``weight`` is
    the argument that holds the kernels, [3][3][channels][outputs].
    """

    nest: Tiled
    batch: int
    rows: int
    columns: int
    channels: int
    outputs: int
    data: int | None
    weight: int

    def tiles(self, size: int) -> tuple[int, int]:
        """How many tiles of ``size`` pixels a side cover an image: down, and across."""
        return ceil(self.rows / size), ceil(self.columns / size)


def image_of(workload: Workload) -> Image | None:
    """Describe ``workload``, if it is a 3x3 convolution of stride 1 with constant weights."""
    nest = tiled(workload)
    if nest is None or nest.packed is None or not nest.broadcast or nest.staged is not None:
        return None
    block = nest.block
    if workload.arguments[block.reads[nest.packed].buffer].dtype != "float32":
        return None
    shape = [axis.extent for axis in block.axes]
    reduced = [axis.reduced for axis in block.axes]
    if reduced != [False] * 4 + [True] * 3 or shape[4:6] != [3, 3] or len(block.reads) != 2:
        return None
    data, weight = block.reads[1 - nest.packed], block.reads[nest.packed]
    if data.dims != ((0,), (1, 4), (2, 5), (6,)) or weight.dims != ((4,), (5,), (6,), (3,)):
        return None
    batch, rows, columns, outputs = shape[:4]
    if data.buffer >= 0 and nest.anchor == 0:
        source = workload.arguments[data.buffer].shape
    elif nest.anchor == 1 and nest.padding == 0:
        source = tuple(axis.extent for axis in workload.blocks[0].axes)
    else:
        return None
    # Rows of the source tell strides and dilations apart wherever there are two rows at all.
    if source != (batch, rows + 2, columns + 2, shape[6]) or min(rows, columns) < 2:
        return None
    argument = data.buffer if data.buffer >= 0 else None
    return Image(nest, batch, rows, columns, shape[6], outputs, argument, weight.buffer)


@dataclass(frozen=True)
class Tiling:
    """How the tiles of ``image`` are numbered.

    ``band`` rows of tiles are one chunk; a row is filled up with tiles until the chunk holds a
    multiple of ``rows``, the register tile of the products. ``vectors`` x ``lanes`` outputs are one
    panel of the transformed kernels.
    """

    image: Image
    size: int
    band: int
    rows: int
    vectors: int
    lanes: int

    @property
    def points(self) -> int:
        """Points along one axis of a transformed tile."""
        return self.size + 2

    @property
    def chunks(self) -> int:
        """Chunks of one image."""
        down, _ = self.image.tiles(self.size)
        return ceil(down / self.band)

    @property
    def across(self) -> int:
        """Tiles of one row."""
        _, across = self.image.tiles(self.size)
        while self.band * across % self.rows:
            across += 1
        return across

    @property
    def tiles(self) -> int:
        """Tiles of one chunk."""
        return self.band * self.across


def rewritten(module: Any, workload: Workload, tiling: Tiling) -> Any:
    """``module`` (an IRModule with the workload's PrimFunc "main") with the convolution replaced.

    The function takes the same arguments. Blocks before and after the convolution stay as they are;
    in its place are blocks "rows", "tiles", "kernels", "products", "columns" and "conv".
    """
    import tvm
    from tvm import relax, tirx

    image = tiling.image
    function = module["main"]
    anchor = image.nest.anchor
    root = function.body.block
    nests = list(root.body.seq) if hasattr(root.body, "seq") else [root.body]
    arguments = list(function.params)
    inputs, output = arguments[: -workload.outputs], arguments[-1]
    buffers = list(root.alloc_buffers)
    last = anchor == len(workload.blocks) - 1
    result = output if last else buffers[-1 - image.nest.block.writes[0].buffer]
    padded = arguments[image.data] if image.data is not None else buffers[0]

    builder = relax.BlockBuilder()
    values = [relax.Var(f"p{i}", _type(buffer)) for i, buffer in enumerate(inputs)]
    known = dict(zip(inputs, values, strict=True))
    with builder.function("fused", values, attrs={"Primitive": True}):
        with builder.dataflow():

            def call(part: Any, name: str, reads: list[Any], written: Any) -> Any:
                variable = builder.add_func(part, name)
                made = relax.call_tir(variable, [known[b] for b in reads], _type(written))
                return builder.emit(made)

            if image.data is None:
                part, reads = _part(nests[:anchor], inputs, [], padded)
                known[padded] = call(part, "before", reads, padded)
            weight = arguments[image.weight]
            known[result] = call(_algorithm(tiling), "winograd", [padded, weight], result)
            if not last:
                inner = [b for b in buffers if not b.same_as(padded) and not b.same_as(result)]
                part, reads = _part(nests[anchor + 1 :], [result, *inputs], inner, output)
                known[output] = call(part, "after", reads, output)
            final = builder.emit_output(known[output])
        builder.emit_func_output(final)
    fused = builder.get()
    # A function that calls it: what nothing calls is not fused.
    caller = relax.BlockBuilder(fused)
    values = [relax.Var(f"q{i}", _type(buffer)) for i, buffer in enumerate(inputs)]
    with caller.function("main", values):
        with caller.dataflow():
            final = caller.emit_output(relax.Call(fused.get_global_var("fused"), values))
        caller.emit_func_output(final)
    made = relax.transform.FuseTIR()(caller.get())["fused"]
    attributes = {k: v for k, v in function.attrs.items() if k != "s_tir"}
    for name, value in attributes.items():
        made = made.with_attr(name, value)
    # Relax counts with 64 bits, and the function that is rewritten with 32.
    narrow = tirx.transform.ForceNarrowIndexToInt32()
    return narrow(tvm.IRModule({"main": made.with_attr("global_symbol", "main")}))


def _type(buffer: Any) -> Any:
    from tvm import relax

    return relax.TensorType([int(extent) for extent in buffer.shape], str(buffer.dtype))


def _part(nests: list[Any], inputs: list[Any], inner: list[Any], output: Any) -> tuple[Any, Any]:
    """A PrimFunc of some loop nests of another one, and which of ``inputs`` it reads, in order."""
    from tvm import s_tir, tirx

    body = nests[0] if len(nests) == 1 else tirx.SeqStmt(nests)
    used = _buffers(body)
    reads = [buffer for buffer in inputs if any(buffer.same_as(b) for b in used)]
    block = s_tir.SBlock([], [], [], "root", body, alloc_buffers=inner)
    function = tirx.PrimFunc([*reads, output], s_tir.SBlockRealize([], True, block))
    return function.with_attr("s_tir", True).with_attr("tirx.noalias", True), reads


def _buffers(body: Any) -> list[Any]:
    """Every buffer that blocks in ``body`` say they read."""
    import tvm_ffi
    from tvm import s_tir

    found: list[Any] = []
    tvm_ffi.structural_walk(
        body, (s_tir.SBlock, lambda block: found.extend(r.source for r in block.reads))
    )
    return found


def _algorithm(tiling: Tiling) -> Any:
    """The convolution itself, as a PrimFunc: padded data, kernels, result."""
    from tvm import te, tirx

    t, image = tiling, tiling.image
    m, a, lanes, width = t.size, t.points, t.lanes, t.vectors * t.lanes
    height, breadth = image.rows + 2, image.columns + 2
    data = te.placeholder((image.batch, height, breadth, image.channels), name="data")
    weight = te.placeholder((3, 3, image.channels, image.outputs), name="weight")
    zero = tirx.const(0.0, "float32")

    def pixel(q: Any, i: Any, j: Any, tile: Any, c: Any) -> Any:
        y = ((q % t.chunks) * t.band + tile // t.across) * m + i
        x = (tile % t.across) * m + j
        # The last tiles may reach beyond the image.
        conditions = []
        if (t.chunks * t.band - 1) * m + a > height:
            conditions.append(y < height)
        if (t.across - 1) * m + a > breadth:
            conditions.append(x < breadth)
        value = data[q // t.chunks, y, x, c]
        return tirx.if_then_else(tirx.all(*conditions), value, zero) if conditions else value

    all_chunks = image.batch * t.chunks
    rows = te.compute(
        (all_chunks, a, a, t.tiles, image.channels),
        lambda q, e, j, tile, c: _combined(BT[m], e, lambda i: pixel(q, i, j, tile, c)),
        name="rows",
    )
    tiles = te.compute(
        (all_chunks, a, a, t.tiles, image.channels),
        lambda q, e, f, tile, c: _combined(BT[m], f, lambda j: rows[q, e, j, tile, c]),
        name="tiles",
    )
    kernels = te.compute(
        (a, a, image.outputs // width, image.channels, width),
        lambda e, f, panel, c, column: _combined(
            G[m],
            e,
            lambda r: _combined(G[m], f, lambda s: weight[r, s, c, panel * width + column]),
        ),
        name="kernels",
    )
    c = te.reduce_axis((0, image.channels), "c")
    products = te.compute(
        (all_chunks, a, a, t.tiles, image.outputs // lanes, lanes),
        lambda q, e, f, tile, v, lane: te.sum(
            tiles[q, e, f, tile, c]
            * kernels[e, f, v // t.vectors, c, (v % t.vectors) * lanes + lane],
            axis=c,
        ),
        name="products",
    )
    columns = te.compute(
        (all_chunks, m, a, t.tiles, image.outputs // lanes, lanes),
        lambda q, y, f, tile, v, lane: _combined(
            AT[m], y, lambda e: products[q, e, f, tile, v, lane]
        ),
        name="columns",
    )

    def result(n: Any, h: Any, w: Any, k: Any) -> Any:
        row, tile = h // m, w // m
        chunk, number = n * t.chunks + row // t.band, (row % t.band) * t.across + tile
        return _combined(
            AT[m], w % m, lambda f: columns[chunk, h % m, f, number, k // lanes, k % lanes]
        )

    conv = te.compute((image.batch, image.rows, image.columns, image.outputs), result, name="conv")
    return te.create_prim_func([data, weight, conv])


def _combined(matrix: Matrix, row: Any, element: Any) -> Any:
    """Row ``row`` of ``matrix`` times the vector of ``element(j)``.

    A choice among all rows, of which one is left when the loop over ``row`` is unrolled.
    """
    from tvm import tirx

    found: Any = None
    for number, factors in reversed(list(enumerate(matrix))):
        line: Any = None
        for place, factor in enumerate(factors):
            if factor == 0:
                continue
            term = element(place)
            if abs(factor) != 1:
                term = term * tirx.const(abs(factor), "float32")
            if line is None:
                line = term if factor > 0 else tirx.const(0.0, "float32") - term
            else:
                line = line + term if factor > 0 else line - term
        found = line if found is None else tirx.Select(row == number, line, found)
    return found
