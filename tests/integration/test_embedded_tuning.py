"""What the embedded server is told, by machine."""

from __future__ import annotations

from pathlib import Path

from app.storage.embedded_tuning import Machine, cgroup_memory_limits, conf_text, this_machine, tuning


def test_memory_is_a_quarter_of_the_machine_and_at_most_4_gib() -> None:
    assert tuning(Machine(8192, 4, 100_000))["shared_buffers"] == "1024MB"
    assert tuning(Machine(262_144, 4, 100_000))["shared_buffers"] == "2048MB"
    assert tuning(Machine(262_144, 4, 100_000), memory_mb=16_384)["shared_buffers"] == "8192MB"
    assert tuning(Machine(256, 1, 100_000))["shared_buffers"] == "32MB"


def test_a_small_disk_is_not_filled_by_wal() -> None:
    assert tuning(Machine(8192, 4, 500_000))["max_wal_size"] == "4096MB"
    assert tuning(Machine(8192, 4, 10_000))["max_wal_size"] == "1000MB"
    assert tuning(Machine(8192, 4, 100))["max_wal_size"] == "256MB"


def test_cores_bound_the_parallel_workers() -> None:
    assert tuning(Machine(8192, 16, 1), cpus=3)["max_parallel_workers"] == "3"
    assert tuning(Machine(8192, 16, 1))["max_parallel_workers"] == "16"
    assert tuning(Machine(8192, 1, 1))["max_parallel_workers_per_gather"] == "0"


def test_durability_is_left_alone() -> None:
    assert not {"fsync", "full_page_writes", "synchronous_commit"} & tuning(Machine(8192, 4, 1)).keys()


def test_the_limits_of_all_cgroups_around_count(tmp_path: Path) -> None:
    groups = tmp_path / "groups"
    groups.write_text("9:cpu,cpuacct:/c\n4:memory:/a/b\n0::/x/y\n")
    for path, text in (
        ("memory/a/b/memory.limit_in_bytes", "9223372036854771712"),
        ("memory/a/memory.limit_in_bytes", "700"),
        ("x/y/memory.max", "max"),
        ("x/memory.max", "500"),
        ("memory.max", "900"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"{text}\n")

    assert sorted(cgroup_memory_limits(groups, tmp_path)) == [500, 700, 900, 9223372036854771712]
    assert list(cgroup_memory_limits(tmp_path / "none", tmp_path)) == []


def test_this_machine_is_measured(tmp_path: Path) -> None:
    machine = this_machine(tmp_path)
    assert machine.ram_mb > 64
    assert machine.cpus >= 1
    assert machine.free_disk_mb > 0


def test_values_cannot_break_out_of_their_quotes() -> None:
    assert conf_text({"a": "it's \\n"}).splitlines()[1:] == ["a = 'it''s \\\\n'"]
