"""Targets: what they say of this machine, and the sentences for those that do not fit."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from autotune.errors import TargetError
from autotune.instructions import X86, features_of_level, level_of, probed, reported_flags
from autotune.target import (
    cache_sizes,
    check_measurable,
    cpu_quota,
    from_file,
    named,
    native,
    resolve,
)

on_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="x86 instructions")


def test_native_is_made_without_the_compiler_and_without_the_host_name() -> None:
    target = native()
    assert target.kind == "llvm"
    assert platform.node() not in (target.model, target.cpu, target.device)
    assert 1 <= target.threads == target.cores <= (os.cpu_count() or 1)
    check_measurable(target)


def test_native_takes_the_threads_it_is_given_into_its_digest() -> None:
    assert native(1).threads == 1
    assert native(1).digest != native(2).digest


@on_x86
def test_native_claims_no_feature_that_the_kernel_does_not_report() -> None:
    flags = {f"+{llvm}" for flag, (llvm, _) in X86.items() if flag in reported_flags()}
    assert set(native().features) <= flags


@on_x86
def test_an_instruction_that_traps_is_found_and_takes_its_family_with_it() -> None:
    good = X86["pni"][1]
    codes = {"sse3": good, "avx512f": "0f0b", "avx512bw": good, "popcnt": good}
    assert probed(codes) == ("sse3", "popcnt")


@on_x86
def test_nothing_is_trusted_where_no_child_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    assert probed({"sse3": X86["pni"][1]}) == ()


def test_levels_and_their_features_agree() -> None:
    for name in ("x86-64-v2", "x86-64-v3", "x86-64-v4"):
        assert level_of(features_of_level(name)) == name
    assert level_of(("+avx512f", "+sse3")) == "x86-64"
    assert named("x86-64-v4").vector_bits == 512
    assert named("x86-64-v3").vector_bits == 256


def test_a_target_file_round_trips(tmp_path: Path) -> None:
    target = replace(native(), model="another", threads=3)
    path = tmp_path / "target.json"
    path.write_text(json.dumps(asdict(target)))
    assert from_file(path) == target
    assert from_file(path).digest == target.digest
    assert resolve(str(path), threads=1) == replace(target, threads=1)


def test_every_fault_of_a_target_file_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "target.json"
    content = {"kind": "cuda", "triple": 3, "cpu": "", "features": "avx2", "cores": 0, "speed": 1}
    path.write_text(json.dumps(content))
    with pytest.raises(TargetError) as caught:
        from_file(path)
    for word in ("kind", "triple", "features", "cores", "speed", "model is missing", "threads"):
        assert word in str(caught.value)


@pytest.mark.parametrize("content", ["", "[1]", "{"])
def test_a_target_file_that_is_no_json_object(tmp_path: Path, content: str) -> None:
    path = tmp_path / "target.json"
    path.write_text(content)
    with pytest.raises(TargetError, match="JSON"):
        from_file(path)


def test_a_missing_target_file() -> None:
    with pytest.raises(TargetError, match="cannot be read"):
        resolve("nowhere.json")


def test_a_foreign_architecture_cannot_be_measured() -> None:
    foreign = "aarch64" if platform.machine() == "x86_64" else "x86-64-v3"
    with pytest.raises(TargetError, match="compile for it without measuring"):
        check_measurable(named(foreign))


@on_x86
def test_missing_instructions_are_named() -> None:
    features = (*native().features, "+avx512f", "+amx-tile", "+prefer-256-bit")
    lacking = {"+avx512f", "+amx-tile"} - set(native().features)
    if not lacking:
        pytest.skip("this machine has them all")
    with pytest.raises(TargetError) as caught:
        check_measurable(replace(native(), features=features))
    assert all(name[1:] in str(caught.value) for name in lacking)
    assert "prefer" not in str(caught.value)


def test_more_threads_than_cpus_cannot_be_measured() -> None:
    with pytest.raises(TargetError, match="--threads"):
        check_measurable(native(4096))


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_must_be_positive(threads: int) -> None:
    with pytest.raises(TargetError, match="1 or more"):
        resolve("native", threads)


def test_caches_are_read_in_bytes_and_instructions_left_out(tmp_path: Path) -> None:
    rows = [("1", "Data", "48K"), ("1", "Instruction", "32K"), ("3", "Unified", "2M")]
    for index, (level, kind, size) in enumerate(rows):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(text + "\n")
    assert cache_sizes(tmp_path) == {1: 48 << 10, 3: 2 << 20}
    assert cache_sizes(tmp_path / "none") == {}


def test_the_tightest_quota_of_all_groups_above_holds(tmp_path: Path) -> None:
    process = tmp_path / "cgroup"
    process.write_text("0::/outer/inner\n")
    inner = tmp_path / "fs" / "outer" / "inner"
    inner.mkdir(parents=True)
    assert cpu_quota(tmp_path / "fs", process) is None
    (inner / "cpu.max").write_text("max 100000\n")
    (inner.parent / "cpu.max").write_text("150000 100000\n")
    assert cpu_quota(tmp_path / "fs", process) == 1.5
