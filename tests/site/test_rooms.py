"""One room for each idea: imports point down, and the package asks for what it imports."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MATHEMATICS = (
    *("gaussian", "schedules", "parameterization", "likelihood", "elbo", "diffusion", "samplers"),
    *("weighting", "augmentation", "times", "randomness", "counter"),
    *("vae", "hierarchy", "observation", "aggregate", "rosetta"),
)
# From the ground up. A room imports from lower floors, never from the rooms beside it.
FLOORS = (
    {"ground": ("", "checks", "progress", "quadrature", "text")},
    {"mathematics": MATHEMATICS},
    {"exact": ("exact",), "nets": ("nets",)},
    {"data": ("data",)},
    {"training": ("training",), "figures": ("figures",)},
    {"cli": ("cli",), "runs": ("runs",), "earlier names": ("config", "evaluation")},
    {"widgets": ("widgets",)},
)
PLACE = {
    part: (floor, room)
    for floor, rooms in enumerate(FLOORS)
    for room, parts in rooms.items()
    for part in parts
}


def modules(root: Path) -> dict[str, Path]:
    """Return the name and the file of each module of ``vdm_lite``; a package is its __init__."""
    found = {}
    for path in sorted((root / "vdm_lite").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path) -> Iterator[str]:
    """Yield what a file imports, also inside functions: ``a.b`` for ``from a import b``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def arrows(root: Path) -> dict[str, set[str]]:
    """Return the modules of ``vdm_lite`` that each module imports."""
    names = modules(root)
    own = {
        name: [full for full in imported(path) if full.partition(".")[0] == "vdm_lite"]
        for name, path in names.items()
    }
    # ``from vdm_lite.gaussian import alpha`` imports the module vdm_lite.gaussian.
    return {
        name: {full if full in names else full.rpartition(".")[0] for full in targets}
        for name, targets in own.items()
    }


def place(module: str) -> tuple[int, str]:
    """Return the floor and the room of a module."""
    return PLACE[module.removeprefix("vdm_lite").removeprefix(".").partition(".")[0]]


def wrong_way(graph: dict[str, set[str]]) -> list[str]:
    """Return the imports that leave a room and do not go down."""
    pairs = [(name, target) for name, targets in graph.items() for target in targets]
    return sorted(
        f"{name} -> {target}"
        for name, target in pairs
        if place(name)[1] != place(target)[1] and place(name)[0] <= place(target)[0]
    )


def test_every_module_has_a_room():
    parts = {name.removeprefix("vdm_lite").strip(".").partition(".")[0] for name in modules(ROOT)}
    assert parts == set(PLACE)


def test_no_arrow_points_up():
    graph = arrows(ROOT)
    assert wrong_way(graph) == []
    assert "vdm_lite.gaussian" in graph["vdm_lite.diffusion"]


def test_no_module_imports_itself_on_the_way():
    assert list(TopologicalSorter(arrows(ROOT)).static_order())


def plant(root: Path, **files: str) -> dict[str, set[str]]:
    """Return the arrows of a small library."""
    for name, text in files.items():
        path = root / "vdm_lite" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return arrows(root)


@pytest.mark.parametrize(
    "line",
    [
        "import vdm_lite.training",
        "from vdm_lite import training",
        "from vdm_lite.training import fit",
        "def f():\n    from vdm_lite.training import fit",
    ],
)
def test_an_arrow_that_points_up_is_found(tmp_path, line):
    graph = plant(tmp_path, gaussian=line, training="from vdm_lite import gaussian")
    assert wrong_way(graph) == ["vdm_lite.gaussian -> vdm_lite.training"]
    with pytest.raises(CycleError):
        TopologicalSorter(graph).prepare()


def test_rooms_side_by_side_do_not_know_each_other(tmp_path):
    graph = plant(tmp_path, training="from vdm_lite import figures", figures="", gaussian="")
    assert wrong_way(graph) == ["vdm_lite.training -> vdm_lite.figures"]
