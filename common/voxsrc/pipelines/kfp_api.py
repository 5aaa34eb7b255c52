"""The Kubeflow Pipelines API of one endpoint, through kfp.Client, with errors that say what to do.

Logging in is kfp's own business: Google's application-default credentials for hosts of
googleusercontent.com, its environment variables for an Identity-Aware Proxy
(KF_PIPELINES_IAP_OAUTH2_CLIENT_ID), nothing for an address behind gcp-cluster/connect.sh. Nothing of it is
stored or printed here.
"""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kfp
import kfp_server_api  # type: ignore[import-untyped]
import urllib3
from kfp_server_api.exceptions import ApiException  # type: ignore[import-untyped]

from voxsrc.errors import ConfigError, VoxsrcError

TIMEOUT_S = 30.0
_HEALTH = "/apis/v2beta1/healthz"
_EQUALS = 1  # V2beta1PredicateOperation
_PAGE_SIZE = 100


class KubeflowError(VoxsrcError):
    """Kubeflow Pipelines cannot be reached, or refused a request.

    Attributes:
        passing: Whether the same request may well succeed later.
        status: HTTP status, None if there was no answer.
    """

    def __init__(self, message: str, *, passing: bool = False, status: int | None = None) -> None:
        super().__init__(message)
        self.passing = passing
        self.status = status


class _Client(kfp.Client):  # type: ignore[misc]  # kfp ships no types
    """kfp's client, asking for its server's health once: its own way waits 25 s on errors that stay."""

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
        """The server's health."""
        return self.healthzs.healthz_service_get_healthz(_request_timeout=TIMEOUT_S)


class KubeflowApi:
    """One endpoint.

    Args:
        endpoint: Its address, http:// or https://.
        namespace: Of the runs; used where the server has several users.

    Raises:
        KubeflowError: Nothing answers there, or something else does.
    """

    def __init__(self, endpoint: str, namespace: str) -> None:
        if not endpoint.startswith(("http://", "https://")):
            raise ConfigError(f"endpoint {endpoint!r}: expected an address such as http://localhost:8080")
        self.endpoint = endpoint.rstrip("/")
        self._namespace = namespace
        # urllib3 would warn of each of its own attempts
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
        self.connect()

    def connect(self) -> None:
        """Makes the client, with a new token where one is needed."""
        self._probe()
        with self._explained("reach Kubeflow Pipelines"), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self._client = _Client(host=self.endpoint)
            health = self._client.get_kfp_healthz()
        # A server with one user knows no namespaces.
        self._run_namespace = self._namespace if getattr(health, "multi_user", False) else None

    def link(self, run_id: str) -> str:
        """The page of a run."""
        return f"{self.endpoint}/#/runs/details/{run_id}"

    def get_run(self, run_id: str) -> Any:
        """One run with its details (V2beta1Run)."""
        with self._explained(f"get run {run_id}"):
            return self._client.runs.run_service_get_run(run_id, _request_timeout=TIMEOUT_S)

    def find_runs(self, name: str) -> list[Any]:
        """The runs with this name, in any experiment, the newest first."""
        predicate = {"operation": _EQUALS, "key": "display_name", "stringValue": name}
        found: list[Any] = []
        token = ""
        while True:
            with self._explained(f"list the runs named {name!r}"):
                answer = self._client.runs.run_service_list_runs(
                    page_token=token,
                    page_size=_PAGE_SIZE,
                    sort_by="created_at desc",
                    filter=json.dumps({"predicates": [predicate]}),
                    _request_timeout=TIMEOUT_S,
                    **({"namespace": self._run_namespace} if self._run_namespace else {}),
                )
            found += answer.runs or []
            token = answer.next_page_token or ""
            if not token:
                return found

    def create_run(
        self,
        package: Path,
        arguments: Mapping[str, Any],
        *,
        name: str,
        experiment: str,
        service_account: str | None,
    ) -> Any:
        """Starts a run of a package in an experiment, which is made if there is none (V2beta1Run)."""
        with self._explained(f"use experiment {experiment!r}"), _silent():
            owner = self._client.create_experiment(experiment, namespace=self._run_namespace)
        with self._explained(f"create run {name!r}", creates=True), _silent():
            return self._client.run_pipeline(
                owner.experiment_id,
                name,
                pipeline_package_path=str(package),
                params=dict(arguments),
                service_account=service_account,
            )

    def repeat_run(self, run: Any) -> Any:
        """Starts the same again as a new run: name, experiment, pipeline, arguments, account (V2beta1Run)."""
        body = kfp_server_api.V2beta1Run(
            display_name=run.display_name,
            experiment_id=run.experiment_id,
            pipeline_spec=run.pipeline_spec,
            runtime_config=run.runtime_config,
            service_account=run.service_account,
        )
        with self._explained(f"create run {run.display_name!r}", creates=True):
            return self._client.runs.run_service_create_run(body, _request_timeout=TIMEOUT_S)

    def delete_run(self, run_id: str, reason: str) -> None:
        """Ends a run and forgets it.

        Args:
            run_id: Of the run.
            reason: What it is, for an error.
        """
        with self._explained(f"delete run {run_id}, {reason}"):
            self._client.runs.run_service_delete_run(run_id, _request_timeout=TIMEOUT_S)

    def _probe(self) -> None:
        """Raises KubeflowError unless something answers that may be Kubeflow Pipelines; logs in nowhere."""
        with urllib3.PoolManager(retries=False, timeout=TIMEOUT_S) as connections:
            try:
                answer = connections.request("GET", self.endpoint + _HEALTH, redirect=False)
            except urllib3.exceptions.HTTPError as error:
                raise KubeflowError(self._unreachable(error), passing=True) from error
        if answer.status == 200:
            try:
                health = json.loads(answer.data)
            except ValueError:
                health = None
            if not isinstance(health, dict):
                raise KubeflowError(
                    f"{self.endpoint} answers, but not as Kubeflow Pipelines does ({_HEALTH} is no JSON "
                    "object); give the address of its ml-pipeline-ui or ml-pipeline service"
                )

    def _unreachable(self, error: Exception) -> str:
        return (
            f"Kubeflow Pipelines does not answer at {self.endpoint} ({_cause(error)}); keep "
            "gcp-cluster/connect.sh running in another terminal.\n"
            "It forwards the port of VOXSRC_KFP_ENDPOINT, 8080 without one, and prints what to give as "
            "--endpoint. For a cluster that gcp-cluster did not make:\n"
            f"  kubectl port-forward service/ml-pipeline-ui 8080:80 --namespace={self._namespace}"
        )

    @contextlib.contextmanager
    def _explained(self, action: str, *, creates: bool = False) -> Iterator[None]:
        """Turns the client's errors into KubeflowError."""
        doubt = (
            ". Whether it was created is not known: look with `voxsrc pipeline watch` before you submit again"
            if creates
            else ""
        )
        try:
            yield
        except ApiException as error:
            status = error.status or None
            passing = status is None or status == 429 or status >= 500
            advice = (
                "; log in: gcloud auth application-default login, or reach it by gcp-cluster/connect.sh"
                if status in (401, 403)
                else ""
            )
            raise KubeflowError(
                f"{self.endpoint}: cannot {action}: HTTP {status}, {_reason(error)}{advice}"
                + (doubt if passing else ""),
                passing=passing,
                status=status,
            ) from error
        except urllib3.exceptions.HTTPError as error:
            raise KubeflowError(
                f"cannot {action}: {self._unreachable(error)}{doubt}", passing=True
            ) from error


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """kfp prints links of its own to standard output, which belongs to our answer."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _reason(error: Any) -> str:
    """The server's words, without the headers, which may hold cookies."""
    try:
        message = json.loads(error.body)["message"]
    except (KeyError, TypeError, ValueError):
        return str(error.reason or "no reason given")
    return str(message)


def _cause(error: BaseException) -> str:
    """The innermost words, such as "Connection refused", of requests' and urllib3's nested errors."""
    while True:
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((part for part in error.args if isinstance(part, BaseException)), None)
        if inner is None:
            return str(error).rpartition(": ")[2]
        error = inner
