"""The servers' certificate, read and tried out before anybody listens."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any

from timedb.contract.errors import InvalidRequest
from timedb.contract.settings import ServerSettings, read_setting_file

__all__ = ["ServerTls"]


@dataclass(frozen=True, slots=True)
class ServerTls:
    """What a server needs to speak TLS.

    Attributes:
        certificate: The chain, PEM.
        key: The private key, PEM.
        client_ca: The authorities of the clients' certificates, PEM; None: clients need none.
    """

    certificate: bytes
    key: bytes
    client_ca: bytes | None

    @classmethod
    def load(cls, settings: ServerSettings) -> ServerTls | None:
        """Read what the settings name; None where they name no certificate.

        Raises:
            InvalidRequest: a file is missing or not what it should be, or the key is not the certificate's.
        """
        if settings.tls_certificate is None or settings.tls_key is None:
            if named := settings.tls_certificate or settings.tls_key or settings.tls_client_ca:
                raise InvalidRequest(
                    f"TIMEDB_TLS_CERTIFICATE, TIMEDB_TLS_KEY: TLS needs both of them; there is only {named!a}"
                )
            return None
        certificate = read_setting_file("tls_certificate", settings.tls_certificate)
        key = read_setting_file("tls_key", settings.tls_key)
        client_ca = None
        if settings.tls_client_ca is not None:
            client_ca = read_setting_file("tls_client_ca", settings.tls_client_ca)
        _try_out(settings)
        return cls(certificate, key, client_ca)

    def flight_arguments(self) -> dict[str, Any]:
        """The arguments of a Flight server."""
        arguments: dict[str, Any] = {"tls_certificates": [(self.certificate, self.key)]}
        if self.client_ca is not None:
            arguments |= {"verify_client": True, "root_certificates": self.client_ca}
        return arguments

    def __repr__(self) -> str:
        return f"ServerTls(client_ca={self.client_ca is not None})"


def _try_out(settings: ServerSettings) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # The empty password keeps OpenSSL from asking for one at the terminal.
        context.load_cert_chain(settings.tls_certificate or "", settings.tls_key, password="")
    except (ssl.SSLError, ValueError):
        raise InvalidRequest(
            f"TIMEDB_TLS_CERTIFICATE, TIMEDB_TLS_KEY: {settings.tls_certificate!a} and {settings.tls_key!a} are no "
            "certificate and its unencrypted private key, both PEM"
        ) from None
    if settings.tls_client_ca is not None:
        try:
            context.load_verify_locations(settings.tls_client_ca)
        except ssl.SSLError:
            raise InvalidRequest(f"TIMEDB_TLS_CLIENT_CA: {settings.tls_client_ca!a} holds no PEM certificate") from None
