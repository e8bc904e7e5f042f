"""The cache of compiled simulators."""

import os

from planish.targets.fpga.toolchain import simulate


def test_a_simulator_that_another_process_forgot_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(simulate, "KEPT", 2)
    folder = tmp_path / "planish" / "simulators"
    folder.mkdir(parents=True)
    for age, name in enumerate(["newest", "newer", "old", "older"]):
        (folder / f"{name}.sim").write_text("")
        os.utime(folder / f"{name}.sim", (1e9 - age, 1e9 - age))
    (folder / "gone.sim").symlink_to(folder / "nothing")  # listed, and not there when it is looked at
    simulate._prune()
    assert sorted(file.stem for file in folder.glob("*.sim") if file.exists()) == ["newer", "newest"]
