"""What users' machines do to a command: its streams, locale, proxies, files named as ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from pipeline.runtime import process
from serving.client.grpc import GrpcTransport

MNIST = [sys.executable, "-c", "from _tfx_image_pipeline import main; main()"]
NO_RUN = "there is no run below"


def run(*arguments: str, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
    environment = options.pop("env", {})
    assert isinstance(environment, dict)
    return subprocess.run(
        [*MNIST, *arguments],
        cwd=cwd,
        env=os.environ | environment,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        **options,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize(
    "name", ["trainer.py", "serving.py", "pipeline/__init__.py", "components/__init__.py"]
)
def test_a_file_that_hides_a_package_is_named(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.touch()

    done = run("--help", cwd=tmp_path, env={"PYTHONPATH": "."}, stdout=subprocess.PIPE)

    hiding = file if file.parent == tmp_path else file.parent
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{hiding} hides a package of this program: give it another name\n"


@pytest.mark.slow
def test_an_installed_package_of_the_same_name_is_passed_over(tmp_path: Path) -> None:
    """As Kubeflow's SDK is: installed before the line that names this project's folder."""
    (tmp_path / "kubeflow").mkdir()
    (tmp_path / "kubeflow" / "__init__.py").write_text("raise ImportError('the SDK')")
    script = (
        "import sys, sysconfig, _tfx_image_pipeline as first\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        f"sysconfig.get_path = lambda name: {str(tmp_path)!r}\n"
        "sys.argv[1:] = ['compile', '--help']\n"
        "first.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Compile the pipeline" in done.stdout


@pytest.mark.slow
def test_a_full_disk_behind_standard_output_is_one_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        for arguments in (["--help"], ["data", "--help"]):
            done = run(*arguments, cwd=tmp_path, stdout=full)
            assert done.returncode == 1
            assert done.stderr.endswith("standard output: No space left on device\n")
            assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_has_gone_ends_a_command_quietly(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = run("--help", cwd=tmp_path, stdout=writer)
    os.close(writer)
    assert done.stderr == ""


def test_closed_streams_are_the_null_device(tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom pipeline.runtime import process\n"
        "process.open_standard_streams()\n"
        f"file = open({str(tmp_path / 'mine')!r}, 'w')\n"
        "print('lost', flush=True)\nassert file.fileno() > 2\n"
    )
    command = f'exec "{sys.executable}" -c "$0" <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", command, script], check=False).returncode == 0
    assert (tmp_path / "mine").read_text() == ""


@pytest.mark.slow
def test_paths_work_in_an_ascii_locale(tmp_path: Path) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run("runs", "--root", "rüt", cwd=tmp_path, env=ascii_only, encoding="utf-8")
    assert done.returncode == 2
    assert f"{NO_RUN} {tmp_path}/rüt" in done.stderr


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "localhost,127.0.0.1,::1"),
        ({"no_proxy": "example.com"}, "example.com,localhost,127.0.0.1,::1"),
        ({"NO_PROXY": "localhost, .local"}, "localhost, .local,127.0.0.1,::1"),
    ],
)
def test_loopback_is_excepted_from_proxies(before: dict[str, str], after: str) -> None:
    assert process.loopback_without_proxy(before) == {"no_proxy": after, "NO_PROXY": after}


def test_grpc_s_own_variable_is_kept_and_extended() -> None:
    changed = process.loopback_without_proxy({"no_grpc_proxy": "a", "no_proxy": "b"})
    assert changed["no_grpc_proxy"] == "a,localhost,127.0.0.1,::1"
    assert changed["no_proxy"] == "b,localhost,127.0.0.1,::1"


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
def test_the_client_reaches_this_machine_past_a_proxy(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that knows no method answers UNIMPLEMENTED; a proxy that is not there, UNAVAILABLE."""
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    for host in ("127.0.0.1", "localhost"):
        transport = GrpcTransport(host, port, None)
        with pytest.raises(grpc.RpcError) as caught:
            transport._channel.unary_unary("/no/method")(b"", timeout=10)
        transport.close()
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    server.stop(None)


def test_child_processes_and_urllib_reach_this_machine_past_a_proxy(tmp_path: Path) -> None:
    script = (
        "import json, urllib.request\nfrom pipeline.runtime import process\nprocess.prepare()\n"
        "import subprocess, sys\n"
        "ask = 'import json, urllib.request as u; print(json.dumps("
        '[bool(u.proxy_bypass(h)) for h in ("localhost", "127.0.0.1", "example.com")]))\'\n'
        "sys.exit(subprocess.run([sys.executable, '-c', ask]).returncode)\n"
    )
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment | {"http_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [True, True, False]


def test_a_user_without_a_home_and_a_name_gets_some(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import pwd\n\ndef nobody(*_):\n    raise KeyError('uid not found')\n\npwd.getpwuid = nobody\n"
    )
    script = (
        "import getpass, pathlib\nfrom pipeline.runtime import process\nprocess.prepare()\n"
        "print(getpass.getuser(), pathlib.Path.home())"
    )
    bare = {name: value for name, value in os.environ.items() if name not in ("HOME", "USER", "LOGNAME")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=bare | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == (f"{os.getuid()} /nonexistent\n", "")


def test_what_libraries_say_when_they_are_imported_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with process.silent_errors():
        os.write(2, b"from C\n")
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "afterwards\n"
