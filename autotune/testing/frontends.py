"""The contract of a frontend as a test suite: subclass it, give ``frontend`` and ``sources``.

class TestMyFrontend(FrontendTestCase):
    @pytest.fixture
    def frontend(self):
        return MyFrontend()

    @pytest.fixture
    def sources(self, tmp_path):
        return [(write_model(tmp_path), {"x": (1, 8)})]  # each with the shapes it leaves open
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from autotune.errors import InputError, ModelError
from autotune.frontends.base import Frontend, ImportedModel, TensorSpec, path_of
from autotune.frontends.sampling import random_inputs
from autotune.frontends.verify import verify_import

Sources = Sequence[tuple[Any, Mapping[str, tuple[int, ...]]]]


class FrontendTestCase:
    """What every ``autotune.frontends.base.Frontend`` must do. Small models: each is compiled."""

    @pytest.fixture
    def frontend(self) -> Frontend:
        """The frontend under test."""
        raise NotImplementedError("give a fixture `frontend`")

    @pytest.fixture
    def sources(self) -> Sources:
        """Models that it takes, each with shapes for the inputs that it leaves open."""
        raise NotImplementedError("give a fixture `sources`")

    @pytest.fixture
    def foreign(self, tmp_path: Path) -> Sequence[Any]:
        """What it must leave to others: a missing file, a folder, a text, an object."""
        text = tmp_path / "notes.txt"
        text.write_text("no model at all\n" * 9)
        return [tmp_path / "missing.txt", tmp_path, text, str(text), object()]

    def test_it_says_what_it_reads(self, frontend: Frontend) -> None:
        """In words for the sentence that lists what can be read."""
        fresh = type(frontend)()
        assert frontend.name and frontend.name == fresh.name
        assert frontend.reads and frontend.reads == fresh.reads

    def test_it_takes_its_models_and_no_others(
        self, frontend: Frontend, sources: Sources, foreign: Sequence[Any]
    ) -> None:
        """Asked without being able to fail."""
        assert sources, "a suite without models shows nothing"
        for source, _ in sources:
            assert frontend.takes(source) is True
            path = path_of(source)
            if path is not None:
                assert frontend.takes(str(path)) is True
        for other in foreign:
            assert frontend.takes(other) is False, other

    def test_what_it_makes_is_a_function_of_named_tensors(
        self, frontend: Frontend, sources: Sources
    ) -> None:
        """ "main" takes and returns what the description says, every shape fixed."""
        for source, shapes in sources:
            model = frontend.load(source, shapes)
            main = model.module["main"]
            assert [_plain(p.ty) for p in main.params] == [_told(spec) for spec in model.inputs]
            returned = main.ret_ty
            fields = list(returned.fields) if hasattr(returned, "fields") else [returned]
            assert [_plain(kind) for kind in fields] == [_told(spec) for spec in model.outputs]
            for specs in (model.inputs, model.outputs):
                assert len({spec.name for spec in specs}) == len(specs)
            given = {spec.name: spec.shape for spec in model.inputs}
            assert all(given[name] == tuple(shape) for name, shape in shapes.items())

    def test_its_reference_computes_the_outputs(self, frontend: Frontend, sources: Sources) -> None:
        """By name, of the shape and kind that were told, and equal for equal inputs."""
        for source, shapes in sources:
            model = frontend.load(source, shapes)
            inputs = random_inputs(model.inputs, 0)
            found, again = model.reference(inputs), model.reference(inputs)
            assert set(found) == {spec.name for spec in model.outputs}
            for spec in model.outputs:
                array = found[spec.name]
                assert (tuple(array.shape), str(array.dtype)) == (spec.shape, spec.dtype)
                assert array.tobytes() == again[spec.name].tobytes()

    def test_the_import_computes_what_the_model_does(
        self, frontend: Frontend, sources: Sources
    ) -> None:
        """Compared with the reference, compiled without anything of ours."""
        for source, shapes in sources:
            check = verify_import(frontend.load(source, shapes))
            assert check.error <= check.tolerance

    def test_equal_models_have_an_equal_digest(self, frontend: Frontend, sources: Sources) -> None:
        """Records of a model are found by it; another model has another one."""
        digests = []
        for source, shapes in sources:
            one, other = (self.load(frontend, source, shapes) for _ in range(2))
            assert one.digest == other.digest and len(one.digest) >= 16
            digests.append(one.digest)
        assert len(set(digests)) == len(digests)

    def load(
        self, frontend: Frontend, source: Any, shapes: Mapping[str, tuple[int, ...]]
    ) -> ImportedModel:
        """As another process would: by a frontend of its own."""
        return type(frontend)().load(source, shapes)

    def test_a_shape_of_no_input_is_refused(self, frontend: Frontend, sources: Sources) -> None:
        """With a sentence that names it."""
        for source, shapes in sources:
            with pytest.raises(InputError, match="no_such_input"):
                frontend.load(source, {**shapes, "no_such_input": (1, 2)})

    def test_a_damaged_file_is_a_sentence(
        self, frontend: Frontend, sources: Sources, tmp_path: Path
    ) -> None:
        """And a missing one: by ``ModelError``, that names the file."""
        for source, shapes in sources:
            path = path_of(source)
            if path is None or not path.is_file():
                continue
            damaged, missing = (tmp_path / f"{word}{path.suffix}" for word in ("damaged", "gone"))
            whole = path.read_bytes()
            damaged.write_bytes(whole[: len(whole) // 2])
            for wrong in (damaged, missing):
                with pytest.raises(ModelError, match=wrong.stem):
                    frontend.load(wrong, shapes)


def _plain(kind: Any) -> tuple[tuple[int, ...], str]:
    return tuple(int(extent) for extent in kind.shape), str(kind.dtype)


def _told(spec: TensorSpec) -> tuple[tuple[int, ...], str]:
    return spec.shape, spec.dtype
