"""Runs a classic script: ``python3 -m tproxy.runner [--cfg JSON] SCRIPT.py | module | module:object``.

tproxy starts this file by its path, so that a folder ``tproxy/`` beside the script cannot take the
place of this package.
"""

import sys

if not __package__:
    import os

    # Python has put this file's own folder first, where it would hide a `client` or `server` of the
    # script's. (Not under -I and -P.)
    _folder = os.path.dirname(os.path.realpath(__file__))
    if sys.path and os.path.realpath(sys.path[0]) == _folder:
        del sys.path[0]

    def _load_package() -> None:
        import importlib.util

        spec = importlib.util.spec_from_file_location(
            "tproxy", os.path.join(_folder, "__init__.py"), submodule_search_locations=[_folder]
        )
        assert spec is not None and spec.loader is not None
        package = importlib.util.module_from_spec(spec)
        sys.modules["tproxy"] = package
        spec.loader.exec_module(package)

    _load_package()

if __name__ == "__main__":
    from tproxy._script import main

    sys.exit(main(sys.argv[1:]))
