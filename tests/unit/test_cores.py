"""In which order logical CPUs are taken."""

from __future__ import annotations

from pathlib import Path

from autotune.measure.cores import set_apart


def machine(root: Path, cores: dict[int, tuple[int, int]]) -> Path:
    for cpu, (package, core) in cores.items():
        folder = root / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text(f"{package}\n")
        (folder / "core_id").write_text(f"{core}\n")
    return root


def test_siblings_come_after_all_first_ones(tmp_path: Path) -> None:
    neighbours = machine(tmp_path, {0: (0, 0), 1: (0, 0), 2: (0, 1), 3: (0, 1)})
    assert set_apart([0, 1, 2, 3], neighbours) == [0, 2, 1, 3]


def test_the_same_core_number_in_two_packages_is_two_cores(tmp_path: Path) -> None:
    packages = machine(tmp_path, {0: (0, 0), 1: (1, 0), 2: (0, 0), 3: (1, 0)})
    assert set_apart([3, 2, 1, 0], packages) == [0, 1, 2, 3]


def test_without_a_topology_every_cpu_is_a_core(tmp_path: Path) -> None:
    assert set_apart([5, 1, 3], tmp_path) == [1, 3, 5]
