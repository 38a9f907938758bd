"""The runner: classic scripts, in every form in which they can be named."""

from __future__ import annotations

import os
import shutil
import sys
import unittest
from typing import Any

from harness import PACKAGE, RUNNER, Router, RouterTest

SCRIPT = "def proxy(data): return {'remote': '127.0.0.1:8000'}\n"


class Forms(RouterTest):
    def test_a_file(self) -> None:
        router = self.classic(SCRIPT)
        hello = router.hello()
        self.assertEqual(hello["name"], "route.py")
        self.assertEqual(hello["methods"], ["proxy", "cancel", "shutdown"])
        self.assertEqual(router.ask(b"x"), {"remote": "127.0.0.1:8000"})
        self.assertEqual(router.end(), 0)
        self.assertEqual(router.stderr(), "")

    def test_a_relative_file_a_module_and_an_object_of_a_module(self) -> None:
        self.write("things/__init__.py", "")
        self.write(
            "things/route.py",
            """
            class Table:
                def __init__(self, close="made"):
                    self.close = close
                def proxy(self, data):
                    return {"close": self.close}
            class Holder:
                table = Table("held")
            table = Table("object")
            def proxy(data):
                return {"close": "module"}
            """,
        )
        for target, close in (
            ("things/route.py", "module"),
            ("things.route", "module"),
            ("things.route:Table", "made"),
            ("things.route:table", "object"),
            ("things.route:Holder.table", "held"),
        ):
            for runner in ([RUNNER], ["-m", "tproxy.runner"]):
                with self.subTest(target, runner=runner):
                    router = self.start(sys.executable, *runner, target, cwd=self.folder)
                    self.assertEqual(router.hello()["name"], "route.py" if target.endswith(".py") else target)
                    self.assertEqual(router.ask(b"x"), {"close": close})

    def test_a_file_wins_over_a_module_and_needs_no_ending(self) -> None:
        self.write("json", SCRIPT)
        router = self.start(sys.executable, RUNNER, "json", cwd=self.folder)
        self.assertEqual(router.ask(b"x"), {"remote": "127.0.0.1:8000"})

    def test_a_folder_is_no_file(self) -> None:
        self.write("route/__init__.py", SCRIPT)
        router = self.start(sys.executable, RUNNER, "route", cwd=self.folder)
        self.assertEqual(router.ask(b"x"), {"remote": "127.0.0.1:8000"})

    def test_imports_look_in_the_working_directory_and_then_beside_the_script(self) -> None:
        self.write("work/first.py", "where = 'work'")
        self.write("scripts/first.py", "where = 'scripts'")
        self.write("scripts/second.py", "where = 'scripts'")
        script = self.write(
            "scripts/route.py",
            """
            import os, sys
            import first, second
            def proxy(data):
                return {"state": [first.where, second.where, sys.path[:2], __file__, sys.argv]}
            """,
        )
        work, scripts = os.path.realpath(self.folder / "work"), os.path.realpath(self.folder / "scripts")
        router = self.start(sys.executable, RUNNER, "../scripts/route.py", "a", cwd=work)
        path = os.path.abspath(os.path.join(work, "../scripts/route.py"))
        self.assertEqual(
            router.ask(b"x")["state"],
            ["work", "scripts", [work, scripts], path, ["../scripts/route.py", "a"]],
        )
        self.assertTrue(os.path.samefile(script, path))

    def test_nothing_of_the_package_is_in_the_way_of_the_scripts_own_modules(self) -> None:
        for name in ("client", "server", "util", "rewrite", "runner"):
            self.write(f"{name}.py", "mine = True")
        router = self.classic(
            """
            import client, server, util, rewrite, runner
            assert client.mine and server.mine and util.mine and rewrite.mine and runner.mine
            from tproxy.client import ClientConnection
            def proxy(data):
                return {"close": ClientConnection.__module__}
            """
        )
        self.assertEqual(router.ask(b"x"), {"close": "tproxy.client"})

    def test_a_folder_named_tproxy_does_not_shadow_the_package(self) -> None:
        self.write("tproxy/__init__.py", "raise SystemExit('the wrong one')")
        script = self.write("route.py", "import tproxy\ndef proxy(data): return {'close': tproxy.__version__}\n")
        for options in ([], ["-I"], ["-s", "-E"]):
            router = self.start(
                sys.executable, *options, RUNNER, script, cwd=self.folder, env={"PYTHONPATH": str(self.folder)}
            )
            self.assertEqual(router.ask(b"x"), {"close": "0.1.0"})

    def test_the_package_may_lie_anywhere(self) -> None:
        place = self.folder / "share dir" / "python"
        shutil.copytree(PACKAGE / "tproxy", place / "tproxy", ignore=shutil.ignore_patterns("__pycache__"))
        script = self.write("route.py", "import tproxy\ndef proxy(data): return {'close': tproxy.__file__}\n")
        router = self.start(sys.executable, place / "tproxy" / "runner.py", script, env={"PYTHONPATH": ""})
        self.assertEqual(router.ask(b"x"), {"close": str(place / "tproxy" / "__init__.py")})

    def test_no_pyc_of_the_script_is_written_or_read(self) -> None:
        for target in ("route.py", "route"):
            script = self.write("route.py", "def proxy(data): return {'close': '1'}\n")
            times = os.stat(script).st_mtime_ns
            env = {"PYTHONDONTWRITEBYTECODE": ""}
            router = self.start(sys.executable, RUNNER, target, cwd=self.folder, env=env)
            self.assertEqual(router.ask(b"x"), {"close": "1"})
            self.assertEqual(list(self.folder.rglob("*route*.pyc")), [])
            # A .pyc of somebody else's does not hide an edit that leaves size and time alone.
            router = self.start(sys.executable, "-c", "import route", cwd=self.folder, env=env)
            self.assertEqual(router.wait(), 0)
            self.assertEqual(len(list(self.folder.rglob("*route*.pyc"))), 1)
            self.write("route.py", "def proxy(data): return {'close': '2'}\n")
            os.utime(script, ns=(times, times))
            router = self.start(sys.executable, RUNNER, target, cwd=self.folder, env=env)
            self.assertEqual(router.ask(b"x"), {"close": "2"})
            shutil.rmtree(self.folder / "__pycache__")

    def test_the_script_is_no_main_program_and_has_a_name_that_shadows_nothing(self) -> None:
        script = self.write(
            "json.py",
            """
            import dataclasses, sys
            @dataclasses.dataclass
            class Entry:
                name: str
            def proxy(data):
                return {"close": __name__ + " " + str(sys.modules[__name__].Entry is Entry)}
            if __name__ == "__main__":
                raise SystemExit("started as a program")
            """,
        )
        router = self.start(sys.executable, RUNNER, script)
        self.assertEqual(router.ask(b"x"), {"close": "_route True"})

    def test_a_script_that_calls_run_by_itself_is_served_once(self) -> None:
        router = self.classic("import tproxy\ndef proxy(data): return {'close': True}\ntproxy.run(proxy, name='own')\n")
        self.assertEqual(router.hello()["name"], "own")
        self.assertEqual(router.ask(b"x"), {"close": True})
        self.assertEqual(router.end(), 0)


class Configuration(RouterTest):
    def test_cfg_is_in_the_script_while_it_loads(self) -> None:
        text = "seen = dict(__tproxy_cfg__)\ndef proxy(data): return {'state': [seen, __tproxy_cfg__]}\n"
        cfg = {"workers": 2, "bind": ["127.0.0.1:5000"]}
        for options in (
            ["--cfg", '{"workers":2,"bind":["127.0.0.1:5000"]}'],
            ['--cfg={"workers":2,"bind":["127.0.0.1:5000"]}'],
        ):
            self.assertEqual(self.classic(text, *options).ask(b"x"), {"state": [cfg, cfg]})
        self.assertEqual(self.classic(text).ask(b"x"), {"state": [{}, {}]})

    def test_cfg_is_in_a_module_and_on_an_object(self) -> None:
        self.write(
            "route.py",
            """
            first = __tproxy_cfg__["a"]
            class Table:
                def __init__(self):
                    self.at_init = self.__tproxy_cfg__["a"]
                def proxy(self, data):
                    return {"state": [first, self.at_init, self.__tproxy_cfg__["a"]]}
            class Slots:
                __slots__ = ()
                def proxy(self, data):
                    return {"state": __tproxy_cfg__["a"]}
            slots = Slots()
            """,
        )
        for target, state in (("route:Table", [1, 1, 1]), ("route:slots", 1)):
            router = self.start(sys.executable, RUNNER, "--cfg", '{"a":1}', target, cwd=self.folder)
            self.assertEqual(router.ask(b"x"), {"state": state})

    def test_wrong_arguments_are_status_2(self) -> None:
        for arguments in ([], ["--cfg"], ["--cfg", "x", "y"], ["--cfg", "[]", "y"], ["--nonsense", "y"]):
            router = self.start(sys.executable, RUNNER, *arguments)
            self.assertEqual(router.wait(), 2)
            self.assertIn("usage:", router.stderr())
            self.assertNotIn("Traceback", router.stderr())


class ClassicFunctions(RouterTest):
    def test_proxy_error_gets_the_classics_types(self) -> None:
        router = self.classic(
            """
            from tproxy.client import ClientConnection, ConnectionError
            from tproxy.server import InactivityTimeout

            def proxy(data):
                return None

            def proxy_error(client, e):
                assert isinstance(client, ClientConnection)
                kind = [t.__name__ for t in (ConnectionError, InactivityTimeout) if isinstance(e, t)]
                return ",".join([type(e).__name__, *kind, e.type, str(e), client.listener])
            """
        )
        self.assertIn("proxy_error", router.hello()["methods"])
        for kind, classes in {
            "connect_refused": "ConnectionRefused,ConnectionError",
            "connect_timeout": "ConnectionTimeout,ConnectionError",
            "connect_failed": "ConnectionError,ConnectionError",
            "dns": "NameNotFound,ConnectionError",
            "tls": "TLSFailure,ConnectionError",
            "loop": "ConnectionLoop,ConnectionError",
            "reset": "ConnectionReset,ConnectionError",
            "inactivity_timeout": "InactivityTimeout,InactivityTimeout",
            "file": "FileFailure",
            "something_new": "RemoteError",
        }.items():
            answer = router.call(
                router.request("proxy_error", type=kind, message="the text", client=None, listener="unix:/x")
            )
            self.assertEqual(answer["result"], {"close": f"{classes},{kind},the text,unix:/x"})

    def test_prints_while_the_script_loads_are_log_lines(self) -> None:
        router = self.classic("import os\nprint('loading')\nos.write(1, b'raw\\n')\n" + SCRIPT)
        self.assertEqual(router.hello()["name"], "route.py")
        self.assertEqual(router.stderr(), "loading\nraw\n")


class Failures(RouterTest):
    def fails(self, *command: Any, status: int = 1, **options: Any) -> str:
        """What a script that cannot be served leaves on stderr; it answers nothing."""
        router: Router = self.start(sys.executable, RUNNER, *command, **options)
        self.assertEqual(router.wait(), status)
        self.assertEqual(router.receive_line(), b"")
        return router.stderr()

    def test_an_exception_while_loading_is_one_traceback_of_the_script(self) -> None:
        script = self.write("route.py", "def table():\n    return {}['x']\n\nTABLE = table()\n")
        log = self.fails(script)
        self.assertEqual(log.count("Traceback"), 1)
        self.assertIn("cannot be loaded", log)
        self.assertIn('route.py", line 4', log)
        self.assertIn("KeyError: 'x'", log)
        for ours in ("_script.py", "runner.py", "frozen"):
            self.assertNotIn(ours, log)

    def test_a_syntax_error_shows_the_line(self) -> None:
        log = self.fails(self.write("route.py", "def proxy(data)\n    return\n"))
        self.assertIn("route.py", log)
        self.assertIn("def proxy(data)", log)
        self.assertIn("SyntaxError", log)
        self.assertNotIn("_script.py", log)

    def test_a_module_that_the_script_misses_is_its_own_error(self) -> None:
        log = self.fails(self.write("route.py", "import nothing_like_this\n"))
        self.assertIn("ModuleNotFoundError: No module named 'nothing_like_this'", log)
        self.write("named.py", "import nothing_like_this\n")
        log = self.fails("named", cwd=self.folder)
        self.assertIn("ModuleNotFoundError: No module named 'nothing_like_this'", log)

    def test_a_script_that_exits_has_its_own_status(self) -> None:
        self.assertEqual(self.fails(self.write("route.py", "import sys\nsys.exit(7)\n"), status=7), "")

    def test_a_script_without_proxy_is_told_so(self) -> None:
        for text in ("x = 1\n", "proxy = None\n"):
            self.assertIn("has no function proxy(data)", self.fails(self.write("route.py", text)))
        self.assertIn("proxy must be a function, not int", self.fails(self.write("route.py", "proxy = 7\n")))
        self.assertIn("proxy must be proxy(data)", self.fails(self.write("route.py", "def proxy(): pass\n")))

    def test_what_is_not_there_is_named(self) -> None:
        self.write("thing.py", "class A: pass\n")
        for target, text in (
            ("nowhere.py", "there is no file nowhere.py"),
            ("nowhere/route", "there is no file nowhere/route"),
            ("nowhere", "nowhere is neither a file nor a module"),
            ("nowhere.inside", "nowhere.inside is neither a file nor a module"),
            ("thing.inside", "thing.inside is neither a file nor a module"),
            ("thing:B", "thing has no B"),
            ("thing:A", "has no function proxy(data)"),
        ):
            with self.subTest(target):
                log = self.fails(target, cwd=self.folder)
                self.assertIn(text, log)
                self.assertNotIn("Traceback", log)


if __name__ == "__main__":
    unittest.main()
