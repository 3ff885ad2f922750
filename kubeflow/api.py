"""A connection to a Kubeflow Pipelines API server, and its errors as one line with what to do."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp_server_api
import urllib3.exceptions
import urllib3.util
from kfp.client import Client
from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials

from pipeline.errors import BAD_INPUT, RefusedError
from pipeline.runtime import proxy
from pipeline.runtime.process import LOOPBACK

# Where a pod finds its namespace, and where Kubeflow's pod defaults put a token for the API server.
POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
POD_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
IN_CLUSTER_HOST = "http://ml-pipeline.{}.svc.cluster.local:8888"
BACKEND_NAMESPACE = "kubeflow"
PORT_FORWARD = "kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80"
TIMEOUT_S = (10, 60)  # to connect, to answer


class ApiError(RefusedError):
    """What the API server refused or why it cannot be reached: one line for a person."""


class AccessError(ApiError):
    """An address or a token that cannot be used; nothing was sent."""

    exit_code = BAD_INPUT


@dataclass(frozen=True)
class Access:
    """How to reach the API server; where nothing is given, as a pod of the same cluster.

    Attributes:
        host: URL of Kubeflow Pipelines, as the browser has it.
        namespace: the user's namespace; only a multi-user Kubeflow has them.
        token_file: file of a bearer token, read again for each request, so it may be renewed.
        token: a bearer token.
        ca_file: certificates that the server's own is checked against.
    """

    host: str | None = None
    namespace: str | None = None
    token_file: Path | None = None
    token: str | None = None
    ca_file: Path | None = None


@dataclass(frozen=True)
class Api:
    """An open connection.

    Attributes:
        client: kfp's own client.
        host: the server's URL.
        namespace: of the user; None where the server has one user.
    """

    client: Client
    host: str
    namespace: str | None

    @property
    def in_cluster(self) -> bool:
        """Whether the server is that of the pod's own cluster, which is found without an option."""
        return self.host == IN_CLUSTER_HOST.format(BACKEND_NAMESPACE)

    def run_page(self, run_id: str) -> str:
        """Address of a run in the browser."""
        return f"{self.host}/#/runs/details/{run_id}"

    def get_run(self, run_id: str) -> kfp_server_api.V2beta1Run:
        """A run as it stands; raises what the generated client raises, within a bounded time."""
        return self.client.runs.run_service_get_run(run_id=run_id, _request_timeout=TIMEOUT_S)


def connect(access: Access) -> Api:
    """Open a connection and make sure that Kubeflow Pipelines answers on it.

    Raises:
        AccessError: for an address or a token that cannot be used.
        ApiError: where there is no way in, with what to do about it.
        OSError: where the token's file cannot be read.
    """
    # urllib3 tells each retry as a warning; the error that ends them tells the same.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    host, token_file = _place(access)
    config = kfp_server_api.Configuration()
    config.host = host
    config.proxy = proxy.proxy_for(host)
    if access.ca_file:
        config.ssl_ca_cert = str(access.ca_file)
    credentials = ServiceAccountTokenVolumeCredentials(str(token_file)) if token_file else None
    if credentials or access.token:
        config.api_key["authorization"] = access.token
        config.api_key_prefix["authorization"] = "Bearer"
        config.refresh_api_key_hook = credentials.refresh_api_key_hook if credentials else None
    # kfp's client asks for the server's health itself, but asks a server that says no five times over.
    with explained(host, "say who it is"):
        health, _, headers = kfp_server_api.HealthzServiceApi(
            kfp_server_api.ApiClient(config)
        ).healthz_service_get_healthz_with_http_info(_request_timeout=TIMEOUT_S)
        if "json" not in headers.get("Content-Type", ""):
            remedy = (
                "the token that was given does not get past it"
                if credentials or access.token
                else "give a token with --token-file or --existing-token"
            )
            raise ApiError(
                f"{host} answers with a page, not as the API of Kubeflow Pipelines: a login page perhaps; "
                f"{remedy}"
            )
        namespace = access.namespace or _pod_namespace()
        if health.multi_user and not namespace:
            raise ApiError(f"{host} has several users: give yours with --namespace")
        with quiet():
            client = Client(
                host=host,
                # With any other value the client would write a settings file into the home folder.
                namespace=(namespace if health.multi_user else None) or BACKEND_NAMESPACE,
                existing_token=access.token,
                credentials=credentials,
                proxy=config.proxy,
                ssl_ca_cert=str(access.ca_file) if access.ca_file else None,
            )
    return Api(client, host, namespace if health.multi_user else None)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """kfp's client prints links and warns of its own age; this keeps both from the terminal."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def explained(host: str, action: str) -> Iterator[None]:
    """Turn the client's exceptions into ApiError.

    Args:
        host: whom the call goes to.
        action: what the call is for: "it may not <action>".
    """
    try:
        yield
    except kfp_server_api.ApiException as error:
        raise ApiError(_refusal(host, action, error)) from None
    except urllib3.exceptions.HTTPError as error:
        raise ApiError(f"cannot reach {host}: {_no_connection(error)}") from None


def passing(error: Exception) -> bool:
    """Whether a call may succeed when it is made again."""
    if isinstance(error, kfp_server_api.ApiException):
        return error.status in (408, 429, 500, 502, 503, 504)
    return isinstance(error, urllib3.exceptions.HTTPError)


def _place(access: Access) -> tuple[str, Path | None]:
    """The server's URL, and the file of a token if there is one."""
    if access.token and access.token_file:
        raise AccessError("give --token-file or --existing-token, not both")
    if access.token is not None:
        _check_token(access.token, "--existing-token")
    if access.token_file:
        _check_token(access.token_file.read_text(errors="replace").strip(), str(access.token_file))
    host = access.host or os.environ.get("KF_PIPELINES_ENDPOINT")
    if host:
        if "://" not in host:
            # A port that kubectl forwards speaks plain HTTP.
            name = urllib3.util.parse_url(host).host
            host = f"{'http' if name in LOOPBACK else 'https'}://{host}"
        return host.rstrip("/"), access.token_file
    if not POD_NAMESPACE.exists():
        raise AccessError(
            f"where is Kubeflow Pipelines? Give --host: `{PORT_FORWARD}` makes it http://localhost:8080"
        )
    named = os.environ.get("KF_PIPELINES_SA_TOKEN_PATH")
    projected = Path(named) if named else POD_TOKEN
    token_file = access.token_file or (projected if projected.exists() and not access.token else None)
    return IN_CLUSTER_HOST.format(BACKEND_NAMESPACE), token_file


def _check_token(token: str, where: str) -> None:
    if not re.fullmatch(r"[!-~]+", token):
        raise AccessError(f"{where} holds no token: one word of visible characters")


def _pod_namespace() -> str | None:
    return POD_NAMESPACE.read_text().strip() if POD_NAMESPACE.exists() else None


def _refusal(host: str, action: str, error: kfp_server_api.ApiException) -> str:
    said = _server_message(error)
    match error.status:
        case 401:
            return (
                f"{host} does not know who you are: give a fresh token with --token-file or "
                f"--existing-token ({said})"
            )
        case 403:
            return (
                f"{host} does not let you {action}: ask for the role kubeflow-edit in the namespace, "
                f"or give another --namespace ({said})"
            )
        case 404 if _is_json(error):
            return f"{host} cannot {action}: {said}"
        case 404:
            return f"{host} cannot {action}: not found; is the address that of Kubeflow Pipelines? ({said})"
        case 429 | 502 | 503 | 504:
            return f"{host} is not ready (HTTP {error.status}): try again in a minute ({said})"
    return f"{host} could not {action} (HTTP {error.status}): {said}"


def _is_json(error: kfp_server_api.ApiException) -> bool:
    """Whether the answer is one of the API's own."""
    try:
        return "message" in json.loads(error.body or "")
    except (ValueError, TypeError):
        return False


def _server_message(error: kfp_server_api.ApiException) -> str:
    """The first line of what the server said."""
    body: Any = error.body or ""
    with contextlib.suppress(ValueError, AttributeError):
        answer = json.loads(body)
        body = answer.get("message") or answer.get("error") or body
    lines = str(body).strip().splitlines()
    return lines[0][:300] if lines else str(error.reason)


def _no_connection(error: urllib3.exceptions.HTTPError) -> str:
    reason: Any = getattr(error, "reason", None) or error
    if isinstance(reason, urllib3.exceptions.SSLError):
        return f"{reason}; give the server's certificates with --ca-file, or is it http:// only?"
    if isinstance(reason, urllib3.exceptions.NameResolutionError):
        return "there is no such host; check --host"
    if isinstance(reason, urllib3.exceptions.NewConnectionError):
        return f"nobody listens there; is `{PORT_FORWARD}` running?"
    if isinstance(reason, urllib3.exceptions.TimeoutError):
        return "no answer in time; is a VPN or a port-forward missing?"
    return str(reason)
