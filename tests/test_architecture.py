"""The rules of CONTRIBUTING.md, read from the source: floors, one direction, small files."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pad_cli

PACKAGE = Path(pad_cli.__file__).resolve().parent
FLOORS = {
    "errors": 0,
    **dict.fromkeys(("preference", "records", "registry", "system", "reports"), 1),
    **dict.fromkeys(("recipe", "principles", "profiles"), 2),
    **dict.fromkeys(("endpoint", "pairs", "prompts"), 3),
    **dict.fromkeys(("equation", "models"), 4),
    **dict.fromkeys(("decoding", "training"), 5),
    **dict.fromkeys(("contrast", "evaluation", "learning", "bench", "server", "world"), 6),
    "cli": 7,
}
SIBLINGS = ("decoding", "training")
EXEMPT = ("", "__main__")
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "shipped" not in path.parts)
HEAVY = ("torch", "transformers", "tokenizers", "peft", "trl", "datasets", "numpy", "accelerate")


def module_of(path: Path) -> str:
    """The module's name below pad_cli: `models.heads`; "" for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def group_of(module: str) -> str:
    return module.partition(".")[0]


def imports_of(module: str) -> Iterator[str]:
    """Every module an `import` anywhere in the file may load, as an absolute name."""
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import; write it out"
            assert node.module is not None
            deeper = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            ours = {name for name in deeper.values() if name.removeprefix("pad_cli.") in MODULES}
            yield from ours
            if len(ours) < len(deeper):
                yield node.module


def own_imports(module: str) -> set[str]:
    """Imported modules of this package, named below pad_cli."""
    names = {name for name in imports_of(module) if group_of(name) == "pad_cli"}
    return {name.removeprefix("pad_cli").removeprefix(".") for name in names}


def outside_imports(module: str) -> set[str]:
    return {group_of(name) for name in imports_of(module)} - {"pad_cli"}


def below(floor: int) -> list[str]:
    return [name for name in MODULES if name not in EXEMPT and FLOORS[group_of(name)] < floor]


def docstrings(tree: ast.AST) -> set[int]:
    """Identities of the constants that are documentation: docstrings, and strings that stand alone."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def string_constants(module: str) -> Iterator[str]:
    documentation = docstrings(MODULES[module])
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


def test_every_module_has_a_floor() -> None:
    unknown = {name for name in MODULES if name not in EXEMPT and group_of(name) not in FLOORS}
    assert not unknown, f"give these a floor in the design and here, or move them: {sorted(unknown)}"


def test_the_walk_finds_the_package() -> None:
    """Guards the other tests here against passing on nothing."""
    assert {"errors", "recipe.recipe_file", "models.heads", "cli.main"} <= set(MODULES)
    assert "errors" in own_imports("cli.generate")
    assert "world.grammar" in own_imports("world.writing")
    assert "torch" in outside_imports("models.heads")


@pytest.mark.parametrize("module", [name for name in MODULES if name not in EXEMPT])
def test_a_module_imports_only_from_its_own_or_lower_floors(module: str) -> None:
    own = FLOORS[group_of(module)]
    for target in own_imports(module):
        if target == "":
            assert group_of(module) == "cli", f"{module} imports the public API; that is for users"
            continue
        assert FLOORS[group_of(target)] <= own, f"{module} (floor {own}) imports {target} from above"
        if group_of(module) in SIBLINGS and group_of(target) in SIBLINGS:
            assert group_of(target) == group_of(module), f"siblings know each other: {module} imports {target}"


def test_imports_form_no_cycle() -> None:
    """Kahn's algorithm: what cannot be laid bare from below is part of a cycle."""
    waiting = {name: own_imports(name) & set(MODULES) - {"", name} for name in MODULES if name not in EXEMPT}
    while ready := [name for name, needs in waiting.items() if not needs & set(waiting)]:
        for name in ready:
            del waiting[name]
    assert not waiting, f"modules in or above a cycle: {sorted(waiting)}"


def test_no_file_is_longer_than_400_lines() -> None:
    long = {path.name: n for path in FILES if (n := len(path.read_text(encoding="utf-8").splitlines())) > 400}
    assert not long


def test_nothing_is_called_utils() -> None:
    assert not [path for path in FILES if path.stem in ("util", "utils", "helpers", "misc", "common")]


def test_floors_0_to_3_import_no_tensor_library() -> None:
    assert {name: found for name in below(4) if (found := outside_imports(name) & set(HEAVY))} == {}


def test_importing_floors_0_to_3_and_the_command_line_loads_no_torch() -> None:
    modules = [f"pad_cli.{name}" for name in below(4)] + ["pad_cli", "pad_cli.cli.main"]
    program = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_line_does_no_tensor_arithmetic() -> None:
    found = {name: outside_imports(name) & set(HEAVY) for name in MODULES if group_of(name) == "cli"}
    assert set().union(*found.values()) == set(), found


def test_the_command_line_imports_when_a_command_runs() -> None:
    """At the top of a module only what is light, so that `pad --help` is fast; the rest inside of functions."""
    light = ("cli", "errors", "system", "")
    for name in MODULES:
        if group_of(name) == "cli":
            own = [node for node in MODULES[name].body if isinstance(node, ast.Import | ast.ImportFrom)]
            found = {getattr(node, "module", None) or node.names[0].name for node in own}  # type: ignore[attr-defined]
            heavy = {each for each in found if group_of(each) == "pad_cli" and each.split(".")[1:2][0] not in light}
            assert not heavy, f"{name} imports {sorted(heavy)} at its top"


def test_every_public_name_can_be_imported_and_is_known_to_type_checkers() -> None:
    block = next(node for node in MODULES[""].body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    known = [alias for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert all(alias.asname == alias.name for alias in known), "without `as`, type checkers take it for private"
    assert sorted(alias.name for alias in known) == pad_cli.__all__
    assert len(known) <= 45, "a public name needs a reason"
    for name in pad_cli.__all__:
        assert getattr(pad_cli, name) is not None
    with pytest.raises(AttributeError, match=r"no attribute 'nothing'$"):
        _ = pad_cli.nothing


def test_only_dpo_imports_trl() -> None:
    assert {name for name in MODULES if "trl" in outside_imports(name)} <= {"training.dpo"}


def test_nothing_but_the_demo_imports_the_world() -> None:
    knowing = {name for name in MODULES if any(group_of(target) == "world" for target in own_imports(name))}
    assert {name for name in knowing if group_of(name) != "world"} == {"cli.demo"}


def test_elsewhere_the_world_is_reached_through_the_registry() -> None:
    for name in MODULES:
        if group_of(name) not in ("world", ""):
            found = [text for text in string_constants(name) if text.startswith(("embedded/", "pad_cli.world"))]
            assert not found, f"{name} knows the embedded world: {found}"
