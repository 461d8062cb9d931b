"""Access tokens for Google Cloud, by google-auth (the extra ``vertex``). It does I/O of its own and blocks: see ``wire.steps.Work``."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import httpx

from .. import settings
from ..errors import AuthError, ConfigError, UnreachableError
from .key import KeySource

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

__all__ = ["GoogleTokens"]

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
TIMEOUT_S = 30.0
SECRETS = ("token", "id_token", "refresh_token", "client_secret")
"""Of credentials, where they have them."""

SIGN_IN = (
    "run `gcloud auth application-default login`, or point GOOGLE_APPLICATION_CREDENTIALS to a service account's file, "
    "or use an API key in GOOGLE_API_KEY without naming a project"
)


class GoogleTokens:
    """The token of Application Default Credentials, or of given credentials; shared by threads.

    Parameters
    ----------
    credentials : google.auth.credentials.Credentials, optional
        By default those that ``google.auth.default`` finds, when the first token is wanted.
    """

    def __init__(self, credentials: Credentials | None = None) -> None:
        self._credentials = credentials
        self._lock = threading.Lock()
        self._refused: str | None = None

    @property
    def token(self) -> str | None:
        """The token that there is; it may have expired."""
        return self._credentials.token if self._credentials is not None else None

    @property
    def fresh(self) -> bool:
        """Whether the token can be used. google-auth says no from 3:45 minutes before it expires."""
        credentials = self._credentials
        return credentials is not None and credentials.valid and credentials.token != self._refused

    @property
    def headers(self) -> dict[str, str]:
        if self._credentials is None:
            return {}
        payer = self._credentials.quota_project_id
        return {"authorization": f"Bearer {self.token}"} | ({"x-goog-user-project": payer} if payer else {})

    def refuse(self) -> None:
        """Take note that the service did not accept the token, whatever its date says."""
        self._refused = self.token

    def refresh(self) -> None:
        """Get a new token where it is time for one. Blocks, for seconds where there are no credentials.

        Raises
        ------
        ConfigError
            If google-auth is not installed, or finds no credentials.
        AuthError
            If the credentials are not accepted.
        UnreachableError
            If there is no way to the token service.
        """
        with self._lock:
            if not self.fresh:
                self._refresh()

    def _refresh(self) -> None:
        try:
            import google.auth
            from google.auth import exceptions
        except ImportError as exc:
            raise ConfigError("vertex with a project needs the extra: pip install 'model-comparison-toolkit[vertex]'") from exc
        ask: Any = exchange  # any callable will do, but google-auth's types want a subclass
        try:
            if self._credentials is None:
                self._credentials, _ = google.auth.default(scopes=[SCOPE], request=ask)
            self._credentials.refresh(ask)  # type: ignore[no-untyped-call]
        except exceptions.DefaultCredentialsError as exc:
            self._wash(exc)
            raise ConfigError(f"vertex found no Google Cloud credentials ({exc}); {SIGN_IN}") from exc
        except exceptions.TransportError as exc:
            self._wash(exc)
            raise UnreachableError(f"can't reach Google's token service ({exc})", provider="vertex") from exc
        except exceptions.GoogleAuthError as exc:
            self._wash(exc)
            raise AuthError(f"Google refuses the credentials ({exc}); {SIGN_IN}", provider="vertex", retryable=exc.retryable) from exc

    def _wash(self, error: Exception) -> None:
        """google-auth quotes what the token service answered, which may repeat what it was sent."""
        keys = KeySource(None, "vertex")
        for name in SECRETS:
            if isinstance(secret := getattr(self._credentials, name, None), str) and secret:
                keys.remember(secret)
        keys.wash(error)


class Answered:
    """A response as google-auth wants it."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self.data = response.content


def exchange(
    url: str, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None, timeout: float | None = None, **_: Any
) -> Answered:
    """One exchange for google-auth, whose own transports need ``requests`` or ``urllib3``. ``_``: options of those."""
    from google.auth.exceptions import TransportError

    host = httpx.URL(url).host
    if settings.offline() and not settings.is_loopback(host):
        raise ConfigError(f"TOOLKIT_OFFLINE=1 refuses {host}: it is not this machine; unset it to go online")
    try:
        return Answered(httpx.request(method, url, content=body, headers=headers, timeout=timeout or TIMEOUT_S))
    except httpx.HTTPError as exc:
        raise TransportError(str(exc) or type(exc).__name__) from exc  # type: ignore[no-untyped-call]
