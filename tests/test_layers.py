"""The rooms of sdd have an order: a file imports only from rooms above its own (ARCHITECTURE.md)."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "sdd"
# A room is a file or a folder; the files of one folder may import each other. cli sees everything.
ROOMS = (
    *(
        "types",
        "lookup",
        "typed",
        "terminal",
        "ranges",
        "settings",
        "config",
        "rng",
        "watch",
        "processes",
        "mesh",
    ),
    *("text", "tasks", "data"),
    *("model", "sampling", "losses", "teacher", "steps", "embedders", "information", "build", "metrics"),
    *(
        "health",
        "progress",
        "logfile",
        "writers",
        "runfolder",
        "details",
        "checkpoint",
        "weights",
        "evaluate",
        "job",
        "collect",
        "initial",
        "validation",
        "signals",
    ),
    *(
        "loop",
        "claims",
        "report",
        "measure",
        "testing",
        "overrides",
        "experiment",
        "plan",
        "theory",
        "study",
        "allocator",
        "shell",
        "commands",
        "sample",
        "run",
        "live",
        "doctor",
        "scaffold",
        "completion",
        "cli",
        "__main__",
    ),
)


def imported_modules(source: str, module: tuple[str, ...], is_package: bool) -> set[str]:
    """Full dotted names that a file imports, also inside functions and for type checking only."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            up = len(module) - node.level + is_package
            base = ".".join((*(module[:up] if node.level else ()), *filter(None, [node.module])))
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def violations(package: Path, rooms: tuple[str, ...]) -> list[str]:
    """One line for every import that goes down or leads to an unknown room, and for every unknown room."""
    found = []
    for path in sorted(package.rglob("*.py")):
        module = (package.name, *path.relative_to(package).with_suffix("").parts)
        is_package = module[-1] == "__init__"
        module = module[:-1] if is_package else module
        room = (
            module[1] if len(module) > 1 else "__init__"
        )  # sdd/__init__.py is above all: it imports nothing
        if room not in (*rooms, "__init__"):
            found.append(f"{path.relative_to(package)}: the room {room} has no place in the order")
            continue
        above = rooms[: rooms.index(room) + 1] if room in rooms else ()
        for name in sorted(imported_modules(path.read_text(), module, is_package)):
            target = name.split(".")
            if name == f"{package.name}.__version__":  # the one thing that sdd/__init__.py offers
                continue
            if target[0] == package.name and (len(target) < 2 or target[1] not in above):
                found.append(f"{path.relative_to(package)} imports {name}: not a room above {room}")
    return found


def test_every_file_imports_only_from_rooms_above_it():
    found = violations(PACKAGE, ROOMS)
    assert not found, "\n" + "\n".join(found)


def test_the_rooms_that_exist_are_looked_at():
    assert sum(1 for _ in PACKAGE.rglob("*.py")) >= 20


def test_a_violation_is_found(tmp_path):
    package = tmp_path / "house"
    (package / "attic").mkdir(parents=True)
    (package / "attic" / "box.py").write_text("from . import chest\nfrom .chest import key\nimport numpy\n")
    (package / "attic" / "chest.py").write_text("def open():\n    from ..cellar import wine\n")
    (package / "attic" / "__init__.py").write_text("from .box import lid\n")
    (package / "hall.py").write_text(
        "import house.attic.box\nfrom house import attic\nimport house.cellar as c\n"
    )
    (package / "cellar.py").write_text("from house import hall, attic\nfrom house.garden import rose\n")
    (package / "shed.py").write_text("")
    (package / "__init__.py").write_text("from house import hall\n")
    assert violations(package, ("attic", "hall", "cellar")) == [
        "__init__.py imports house.hall: not a room above __init__",
        "attic/chest.py imports house.cellar.wine: not a room above attic",
        "cellar.py imports house.garden.rose: not a room above cellar",
        "hall.py imports house.cellar: not a room above hall",
        "shed.py: the room shed has no place in the order",
    ]
