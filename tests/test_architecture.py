"""Rules of the house that code review would forget."""

import ast
import inspect
import subprocess
import sys
from importlib.metadata import entry_points, requires
from pathlib import Path

import pytest

import trio_minillm

ROOT = Path(trio_minillm.__file__).parent

LAYERS = [
    {"_version", "_errors", "_cost"},
    {"_sse", "_messages", "_options", "_secrets"},
    {"_params", "_openai_format", "_chunks"},
    {"_crowd", "_ending", "_parts", "_plain", "providers", "_http1"},
    {"_ingest", "_budget", "_models", "_ledger", "_prices", "_media", "_tokens"},
    {"_decode", "_ledger_file", "_estimate"},
    {"_connection"},
    {"_transport"},
    {"_http", "_clocks", "_direct"},
    {"_intake"},
    {"_reader", "_books"},
    {"_stream"},
    {"_tracked"},
    {"batch"},
    {"_client"},
    {"_llama_server"},
    {"local", "testing"},
    {"__init__"},
    {"adapters"},
    {"cli"},
]
"""What a module may import stands above it. The first six layers are the pure core."""
PURE = 6

WAITING = {"trio", "httpx", "time", "socket", "asyncio", "threading", "subprocess", "random"}


def sources():
    return sorted(p for p in ROOT.rglob("*.py"))


def layer_of(path):
    name = path.relative_to(ROOT).parts[0].removesuffix(".py")
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


def imports(path):
    """The top-level names of foreign imports, and the layers of our own, that always run."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    foreign, ours = set(), set()
    depth = len(path.relative_to(ROOT).parts)
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            foreign |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                foreign.add(node.module.split(".")[0])
            elif node.level == depth:
                ours |= {node.module or alias.name for alias in node.names}
    return foreign, {name.split(".")[0] for name in ours}


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    foreign, ours = imports(path)
    mine = layer_of(path)
    for name in ours:
        other = next(i for i, layer in enumerate(LAYERS) if name in layer)
        assert other < mine, f"{path.name} imports {name}, which stands below it or beside it"
    if "trio_minillm" in foreign:  # the plugin is installed outside of the package, too
        assert path.parent.name == "cli" or path.name in ("cli.py", "_plugin.py")


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_never_waits(path):
    if layer_of(path) < PURE:
        foreign, _ = imports(path)
        assert not foreign & WAITING
        assert "async def" not in path.read_text()


def test_httpx_is_spoken_in_few_places():
    found = {p.relative_to(ROOT) for p in sources() if "httpx" in imports(p)[0]}
    speakers = {path.parts[0] for path in found}
    assert speakers == {
        "_http.py",
        "_transport.py",
        "_direct.py",
        "_client.py",
        "local.py",
        "testing",
    }


def test_the_core_needs_what_the_card_says():
    needed = {r.split(">")[0] for r in requires("trio-minillm") or () if "extra" not in r}
    assert needed == {"trio", "httpx", "httptools", "msgspec"}


def test_importing_the_package_imports_what_every_program_needs():
    """Nothing foreign, not even of the standard library, that its requirements don't load anyway."""
    code = """if True:
        import sys, trio, httpx, httptools, msgspec
        before = set(sys.modules)
        import trio_minillm
        print(*{name.partition(".")[0] for name in set(sys.modules) - before})
        print(*(name for name in sys.modules if name.startswith("trio_minillm")))
    """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    foreign, ours = map(str.split, ran.stdout.splitlines())
    assert foreign == ["trio_minillm"]
    later = {"_estimate", "_ledger_file", "_llama_server", "_media", "_prices", "_tokens"}
    later |= {"adapters", "batch", "cli", "local", "testing"}
    assert not {name.split(".")[1] for name in ours if "." in name} & later


def test_what_is_loaded_later_is_there():
    for name in trio_minillm.__all__:
        assert name in dir(trio_minillm)
        assert getattr(trio_minillm, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        trio_minillm.no_such_name  # noqa: B018


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


def test_what_is_tested_is_what_is_installed(request):
    """In CI the wheel is tested, not the sources beside the tests."""
    checkout = Path(__file__).parent.parent
    if sys.flags.safe_path:
        assert not ROOT.is_relative_to(checkout / "trio_minillm")
