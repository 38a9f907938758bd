"""Finding, loading and serving a classic script."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import inspect
import json
import os
import sys
import traceback
import types
from typing import Any, Callable

from ._listen import Unusable, listener_for
from ._router import PACKAGE_FOLDER, Router
from ._run import serve, serve_listening
from ._wire import NotASocket, log, take_over

USAGE = "usage: python3 -m tproxy.runner [--cfg JSON] [--listen PATH] SCRIPT.py | module | module:object"

#: A script's name in sys.modules. Its file's name could be that of a standard module.
SCRIPT_NAME = "_route"


def main(arguments: list[str]) -> int:
    """Serve the script of the command line. Returns the exit status."""
    try:
        options, target, rest = parse(arguments)
    except Unusable as error:
        print(f"tproxy: {error}\n{USAGE}", file=sys.stderr)
        return 2
    wire = None
    try:
        listener = listener_for(options.listen)
        if listener is None:
            wire = take_over()  # first, so that what the script prints while it loads is harmless
    except Unusable as error:
        log(str(error))
        return 1
    except NotASocket:
        log(f"standard input is not a socket from tproxy; start the script with: tproxy {target}")
        return 2
    sys.argv = [target, *rest]
    try:
        script = load(target, options.cfg)
        router = router_of(script, target)
    except Unusable as error:
        log(str(error))
        return 1
    except Exception as error:
        print_failure(target, error)
        return 1
    if listener is not None:
        serve_listening(router, listener)
    elif wire is not None:
        serve(router, wire)
    return 0


class Options:
    """Those of the command line."""

    def __init__(self) -> None:
        self.cfg: Any = {}
        self.listen: str | None = None


def parse(arguments: list[str]) -> tuple[Options, str, list[str]]:
    options = Options()
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option == "--":
            break
        name, equals, value = option.partition("=")
        if name not in ("--cfg", "--listen"):
            raise Unusable(f"unknown option {option}")
        if not equals:
            if not rest:
                raise Unusable(f"{name} needs a value")
            value = rest.pop(0)
        if name == "--listen":
            options.listen = value
            continue
        try:
            options.cfg = json.loads(value)
        except ValueError as error:
            raise Unusable(f"--cfg is not JSON: {error}") from None
        if not isinstance(options.cfg, dict):
            raise Unusable("--cfg is not a JSON object")
    if not rest:
        raise Unusable("no script given")
    return options, rest[0], rest[1:]


class FreshLoader(importlib.machinery.SourceFileLoader):
    """Compiles the source that is there now, and leaves no ``.pyc``: one would hide an edit within
    the same second from a reload."""

    def get_code(self, fullname: str) -> types.CodeType:
        path = self.get_filename(fullname)
        code: types.CodeType = self.source_to_code(self.get_data(path), path)
        return code


def load(target: str, cfg: Any) -> Any:
    """The script as a module, or the object that ``module:object`` names."""
    if os.path.isfile(target):
        folder = os.path.dirname(os.path.realpath(target))
        sys.path[:0] = [os.getcwd(), folder]
        path = os.path.abspath(target)
        return execute(SCRIPT_NAME, path, FreshLoader(SCRIPT_NAME, path), cfg)
    sys.path.insert(0, os.getcwd())
    name, _, attribute = target.partition(":")
    if os.sep in name or name.endswith(".py"):
        raise Unusable(f"there is no file {name}")
    module = load_module(name, cfg)
    if not attribute:
        return module
    found: Any = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise Unusable(f"{name} has no {attribute}") from None
    if inspect.isclass(found):
        setattr(found, "__tproxy_cfg__", cfg)
        found = found()
    else:
        try:
            found.__tproxy_cfg__ = cfg
        except (AttributeError, TypeError):
            pass  # an object with slots: it has the module's
    return found


def load_module(name: str, cfg: Any) -> types.ModuleType:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if not (name + ".").startswith(f"{error.name}."):
            raise
        spec = None
    except ValueError:
        spec = None
    if spec is None or spec.loader is None:
        raise Unusable(f"{name} is neither a file nor a module (looked in {', '.join(sys.path)})")
    if type(spec.loader) is importlib.machinery.SourceFileLoader:
        spec.loader = FreshLoader(name, spec.loader.path)
    return execute_spec(spec, cfg)


def execute(name: str, path: str, loader: FreshLoader, cfg: Any) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    return execute_spec(spec, cfg)


def execute_spec(spec: importlib.machinery.ModuleSpec, cfg: Any) -> types.ModuleType:
    module = importlib.util.module_from_spec(spec)
    vars(module)["__tproxy_cfg__"] = cfg
    sys.modules[spec.name] = module
    assert spec.loader is not None
    spec.loader.exec_module(module)
    return module


def router_of(script: Any, target: str) -> Router:
    proxy: Callable[..., Any] | None = getattr(script, "proxy", None)
    if proxy is None:
        raise Unusable(f"{target} has no function proxy(data); a script needs one")
    name = target if not os.path.isfile(target) else os.path.basename(target)
    closed = getattr(script, "closed", None)
    try:
        return Router(
            proxy,
            proxy_error=getattr(script, "proxy_error", None),
            closed=closed if callable(closed) else None,  # an old script's may be a mere variable
            rewrite_request=getattr(script, "rewrite_request", None),
            rewrite_response=getattr(script, "rewrite_response", None),
            events=script_events(script),
            name=name,
        )
    except (TypeError, ValueError) as error:
        raise Unusable(f"{target}: {error}") from None


def script_events(script: Any) -> Any:
    """The script's ``events``, if it is a list of texts; old scripts may use the name for something else."""
    events = getattr(script, "events", None)
    is_list = isinstance(events, (list, tuple, set, frozenset)) and all(isinstance(name, str) for name in events)
    return events if is_list and events else ()


def print_failure(target: str, error: BaseException) -> None:
    """The traceback, from the script's own first line on."""
    frames = error.__traceback__
    while frames is not None and is_loading(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    text = "".join(traceback.format_exception(type(error), error, frames))
    sys.stderr.write(f"tproxy: {target} cannot be loaded\n{text}")
    sys.stderr.flush()


def is_loading(file: str) -> bool:
    return file.startswith((PACKAGE_FOLDER, "<frozen importlib"))
