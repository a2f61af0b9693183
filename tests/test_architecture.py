"""Rules of the house that code review would forget.

A folder of the package (or a module beside them) is a room, and `ROOMS` is the whole order: a new
file needs no entry here. Every import counts, those for type checking and those inside functions too.
"""

import ast
import graphlib
import inspect
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import entry_points, requires
from pathlib import Path

import msgspec
import pytest

import trio_minillm
from trio_minillm import batch, local, providers, testing
from trio_minillm.batch import BatchOptions, VendorBatchOptions

from .support.paths import REPOSITORY

ROOT = Path(trio_minillm.__file__).parent
TESTS = Path(__file__).parent

ROOMS = [
    {"_version"},
    {"_types"},
    {"providers", "_http"},
    {"_protocol"},
    {"_accounting"},
    {"_stream"},
    {"_toolkit"},
    {"_batch"},
    {"_vendor_batch"},
    {"_client"},
    {"local"},
    {"adapters"},
    {"batch"},
    {"__init__"},
    {"testing"},
    {"_serve"},
    {"_bench"},
    {"cli"},
    {"__main__"},
]
"""A room imports from the rows above its own, and from itself."""
PURE = {"_version", "_types", "providers", "_protocol", "_batch/throttle"}
"""Rooms that know no event loop, no clock and no network."""
HTTPX = {"_http", "local", "testing"}
"""The rooms that speak to httpx."""
WITH_HTTPX = {
    *("_http/brought", "_http/event_source", "_http/httpx2_bridge", "_http/httpx_exchange"),
    *("_http/routes", "_http/transport", "_stream/event_source"),
    *("testing/_check_provider", "testing/_check_transport", "testing/_recording"),
    "testing/_scripted_transport",
}
"""The files that import httpx when they are imported. They are for those who bring something of it, or
have a proxy: other files import them, and httpx, inside of the functions that need them.
"""

WAITING = {"trio", "httpx", "time", "socket", "asyncio", "threading", "subprocess", "random"}


def sources():
    return sorted(p.relative_to(ROOT) for p in ROOT.rglob("*.py"))


def room_of(path):
    return path.parts[0].removesuffix(".py")


def level_of(room):
    return next(i for i, row in enumerate(ROOMS) if room in row)


def imports(path):
    """Yield each import of a file: the top-level name of a foreign package, or a path of ours."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imported_by(node, path)


def imported_by(node, path):
    if isinstance(node, ast.Import):
        names = [alias.name.split(".") for alias in node.names]
    else:
        folder = ("trio_minillm", *path.parts[:-1])
        base = [*folder[: len(folder) - node.level + 1]] if node.level else []
        base += node.module.split(".") if node.module else []
        names = [[*base, alias.name] for alias in node.names]
    for name in names:
        yield ours(*name[1:]) if name[0] == "trio_minillm" else name[0]


def ours(*parts):
    """The file that holds what a dotted name of this package means."""
    for end in range(len(parts), 0, -1):
        module = Path(*parts[:end])
        for file in (module.with_suffix(".py"), module / "__init__.py"):
            if (ROOT / file).exists():
                return file
    return Path("__init__.py")


@cache
def tree(path):
    return ast.parse((ROOT / path).read_text())


@cache
def graph():
    """Each file with the files of ours that it imports."""
    return {p: {i for i in imports(p) if isinstance(i, Path)} - {p} for p in sources()}


@pytest.mark.parametrize("path", sources(), ids=str)
def test_imports_go_one_way(path):
    mine = room_of(path)
    for other in graph()[path]:
        if path.name == "_plugin.py":  # installed outside of the package, too: a program of its own
            continue
        assert room_of(other) == mine or level_of(room_of(other)) < level_of(mine), (
            f"{path} imports {other}, which stands below it or beside it"
        )


def test_there_are_no_circles():
    graphlib.TopologicalSorter(graph()).prepare()  # raises CycleError, which shows the circle


def test_every_room_has_its_place():
    assert {room_of(path) for path in sources()} == set().union(*ROOMS)


@pytest.mark.parametrize(
    "path", [p for p in sources() if any(str(p).startswith(room) for room in PURE)], ids=str
)
def test_the_core_never_waits(path):
    assert not set(imports(path)) & WAITING
    assert "async def" not in (ROOT / path).read_text()


def test_httpx_is_spoken_in_few_places():
    assert {room_of(p) for p in sources() if "httpx" in set(imports(p))} <= HTTPX


def loaded_with(path):
    """Yield each import that is carried out whenever a file is imported, as `imports` does."""
    for node in tree(path).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imported_by(node, path)


def test_httpx_is_imported_by_those_who_need_it():
    """By others only inside of functions; so is each file that imports it."""
    heavy = {"httpx", "httpx2", *(Path(f"{name}.py") for name in WITH_HTTPX)}
    found = {p.with_suffix("").as_posix() for p in sources() if heavy & {*loaded_with(p)}}
    assert found == WITH_HTTPX


def test_the_core_needs_what_the_card_says():
    needed = {re.match(r"[\w-]+", r)[0] for r in requires("trio-minillm") or () if "extra" not in r}
    assert needed == {"trio", "httpx", "httpx-sse", "httptools", "msgspec"}


@pytest.mark.parametrize("path", sources(), ids=str)
def test_no_private_name_is_imported(path):
    """Modules may begin with an underscore. Attributes are ruff's matter (SLF001)."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom):
            folder = path.parents[max(node.level - 1, 0)] if node.level else Path()
            module = ROOT / folder / (node.module or "").replace(".", "/")
            for name in (a.name for a in node.names if re.match("_[^_]", a.name)):
                assert (module / f"{name}.py").exists() or (module / name).is_dir(), (
                    f"{path}:{node.lineno} imports {name}"
                )


MOST_ATTRIBUTES, LONGEST_BODY = 14, 45


def size_of(node):
    """The attributes that a class sets on itself, or the lines of a function below its docstring."""
    if isinstance(node, ast.ClassDef):
        stored = (n for n in ast.walk(node) if isinstance(getattr(n, "ctx", None), ast.Store))
        own = (n for n in stored if isinstance(n, ast.Attribute))
        return len({n.attr for n in own if getattr(n.value, "id", "") == "self"})
    begin = node.body[ast.get_docstring(node) is not None :] or node.body
    return node.end_lineno - begin[0].lineno + 1


@pytest.mark.parametrize("path", sources(), ids=str)
def test_classes_and_functions_are_small_or_say_why_not(path):
    """A docstring gives the reason in a sentence with the number: "Its 16 attributes are one …"."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            is_class, size = isinstance(node, ast.ClassDef), size_of(node)
            most, what = (MOST_ATTRIBUTES, "attributes") if is_class else (LONGEST_BODY, "lines")
            reason = f"{size} {what}" in (ast.get_docstring(node) or "")
            assert reason or size <= most, f"{path}:{node.lineno} {node.name} has {size} {what}"


RIDDLES = re.compile(r"(What|Whether|How|Who|Whose|Where|When|Why)\b")


@pytest.mark.parametrize("path", sources(), ids=str)
def test_docstrings_open_with_a_verb_or_a_noun(path):
    """Those of constants and attributes, which stand below them, as well."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str):
            first = node.value.value.strip().partition("\n")[0]
            assert not RIDDLES.match(first), f"trio_minillm/{path}:{node.lineno}: {first}"


def test_importing_the_package_imports_what_every_program_needs():
    """Nothing foreign, not even of the standard library, that trio, httptools and msgspec don't load
    anyway: so not httpx, which takes half as long as all the rest.
    """
    code = """if True:
        import json, sys, trio, httptools, msgspec
        before = set(sys.modules)
        import trio_minillm
        print(*{name.partition(".")[0] for name in set(sys.modules) - before})
        print(*(name for name in sys.modules if name.startswith("trio_minillm")))
    """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    foreign, ours = map(str.split, ran.stdout.splitlines())
    assert foreign == ["trio_minillm"]
    toolkit = {name for name in ours if "._toolkit." in name}
    assert toolkit == {"trio_minillm._toolkit.streams"}  # each method loads what it needs
    rooms = {"_batch", "_vendor_batch", "adapters", "batch", "cli", "local", "testing"}
    files = {"estimate", "image_tokens", "known_prices", "ledger_file", "tokenizers"}
    assert not {name.split(".")[1] for name in ours if "." in name} & rooms
    assert not {name.rpartition(".")[2] for name in ours if "._accounting." in name} & files
    wires = {
        "openai",
        "anthropic",
        "openrouter",
        "compatible",
        "gemini",
        "openai_responses",
        "text_completions",
        "_server_quirks",
    }  # a program has one
    assert not {name.rpartition(".")[2] for name in ours if ".providers." in name} & wires
    rare = {"array_events", "path_arguments", "surrogates"}  # what few answers hold
    rare |= {"decompression", "event_source", "renewal", "short_bodies"}
    rare |= {name.rpartition("/")[2] for name in WITH_HTTPX}
    assert not {name.rpartition(".")[2] for name in ours} & rare


@pytest.mark.parametrize("package", [trio_minillm, providers, testing])
def test_what_is_loaded_later_is_there(package):
    for name in package.__all__:
        assert name in dir(package)
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match=f"{package.__name__}.*no_such_name"):
        package.no_such_name  # noqa: B018


def test_the_command_is_installed():
    (command,) = entry_points(group="console_scripts", name="trio-minillm")
    assert callable(command.load())


def test_exports_are_sorted_exist_and_say_what_they_are():
    assert trio_minillm.__all__ == sorted(trio_minillm.__all__)
    for name in trio_minillm.__all__:
        thing = getattr(trio_minillm, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert (inspect.getdoc(thing) or "").strip(), f"{name} has no docstring"
            assert not (inspect.getdoc(thing) or "").startswith(f"{name}("), name


@pytest.mark.parametrize(
    "thing",
    [
        trio_minillm.Client,
        trio_minillm.StreamingCompletion,
        trio_minillm.Partial,
        trio_minillm.StreamedCall,
        trio_minillm.Provider,
        trio_minillm.Usage,
        trio_minillm.CompletionResponse,
        trio_minillm.Choice,
        trio_minillm.SSEDecoder,
    ],
)
def test_public_methods_say_what_they_do(thing):
    for name, member in vars(thing).items():
        if name.startswith("_") or not (inspect.isfunction(member) or isinstance(member, property)):
            continue
        assert inspect.getdoc(member), f"{thing.__name__}.{name} has no docstring"


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda p: p.stem)
def test_no_test_module_imports_another(path):
    """Check that test modules share code through `tests/support` only, even in programs inside strings."""
    found = re.findall(r"(?m)^\s*(?:from|import)\s.*\btest_\w+", path.read_text())
    assert not found, f"{path} imports another test module"


def test_what_is_tested_is_what_is_installed(request):
    """In CI the wheel is tested, not the sources beside the tests."""
    if sys.flags.safe_path:
        assert not ROOT.is_relative_to(REPOSITORY / "trio_minillm")


def test_lint_tools_have_one_version():
    """The hooks that run before a commit and the sessions of nox agree."""
    text = (REPOSITORY / "pyproject.toml").read_text()
    hooks = (REPOSITORY / ".pre-commit-config.yaml").read_text()
    pinned = set(re.findall(r'"((?:codespell|ruff)==[\d.]+)"', text))
    assert len(pinned) == 2
    assert set(re.findall(r'"((?:codespell|ruff)==[\d.]+)"', hooks)) == pinned


def held_by_users():
    """Each Struct whose name is public, with those of ours that it inherits fields from."""
    packages = [trio_minillm, batch, local, providers, testing]
    public = [getattr(package, name) for package in packages for name in package.__all__]
    structs = (thing for thing in public if inspect.isclass(thing))
    found = {
        base
        for struct in structs
        for base in struct.__mro__
        if base.__module__.startswith("trio_minillm")
    }
    found = {one for one in found if issubclass(one, msgspec.Struct)}
    return sorted({*found, BatchOptions, VendorBatchOptions}, key=lambda one: one.__name__)


@pytest.mark.parametrize("held", held_by_users(), ids=lambda held: held.__name__)
def test_each_field_that_a_user_holds_says_what_it_is(held):
    """In a docstring below it, which editors and the reference show."""
    (node,) = ast.parse(inspect.getsource(held)).body
    for field, below in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and not field.target.id.startswith("_"):
            doc = below.value if isinstance(below, ast.Expr) else None
            assert isinstance(getattr(doc, "value", None), str), (
                f"{held.__name__}.{field.target.id} has no docstring"
            )
