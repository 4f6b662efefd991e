"""What a notebook needs of a service: make a lake, start the API, look whether it runs. None of it asks questions."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from timedb.client.answering import API_NAME, describe_api
from timedb.contract.errors import InvalidRequest
from timedb.contract.hosts import reachable, url_of
from timedb.contract.settings import ServerSettings, load_settings, local_path

if TYPE_CHECKING:
    from timedb.run.launch import Service

__all__ = [
    "check_api",
    "create",
    "delete",
    "start_api",
    "start_api_background",
    "stop_api",
]


class _Session:
    """What this process has started."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.services: list[Service] = []
        self.api_url: str | None = None
        self._watched = False

    def add(self, service: Service) -> None:
        """Remember a service, and stop it with the process."""
        self.services.append(service)
        self.api_url = service.rest_url
        if not self._watched:
            # Not atexit: the interpreter first waits for the service's worker threads, which only end with the service.
            threading.Thread(target=self._stop_with_main_thread, name="timedb-stop-at-exit").start()
            self._watched = True

    def _stop_with_main_thread(self) -> None:
        threading.main_thread().join()
        self.stop()

    def serving(self, instance: str | None) -> Service | None:
        """The service whose gateway says that it is this instance."""
        return next((each for each in self.services if instance and each.rest_instance == instance), None)

    def stop(self, lake: str | None = None) -> list[Service]:
        """Stop the services of one lake, or all; gives those that it stopped."""
        with self.lock:
            chosen = [each for each in self.services if lake is None or _same_lake(each.lake, lake)]
            for service in chosen:
                self.services.remove(service)
                service.stop()
            return chosen


_session = _Session()


def create(lake: str | None = None) -> None:
    """Make the lake; one that is there already stays as it is.

    Args:
        lake: A folder or object store address; None: ``TIMEDB_LAKE``, else ``./timedb-data``.

    Raises:
        InvalidRequest: the place holds something else.

    Examples:
        >>> td.create(f"{folder}/made")
        Creating database schema...
        ✓ Schema created successfully: the lake is at .../made
    """
    from timedb.contract.errors import NotFound
    from timedb.storage import Lake

    settings = load_settings(ServerSettings, lake=lake)
    try:
        Lake.open(settings.lake, settings, create=False).close()
        print(f"✓ Schema exists already: the lake at {settings.lake} stays as it is")
    except NotFound:
        print("Creating database schema...")
        Lake.open(settings.lake, settings).close()
        print(f"✓ Schema created successfully: the lake is at {settings.lake}")


def delete(lake: str | None = None, *, force: bool = False) -> None:
    """Delete the lake with everything in it, without asking; deleting nothing succeeds.

    An API that this process runs on that lake is stopped first.

    Args:
        lake: As of :func:`create`.
        force: Also while a server of another process runs on it, which then answers every call with an error.

    Raises:
        InvalidRequest: the place holds something that is no lake; it is left alone.
        Conflict: a server of another process is running on it.

    Examples:
        >>> td.delete(f"{folder}/none")
        ✓ Nothing to delete: there is no lake at .../none
    """
    from timedb.storage import Lake

    address = load_settings(ServerSettings, lake=lake).lake
    for service in _session.stop(address):
        print(f"✓ API server on {service.rest_url} stopped")
    if Lake.delete(address, force=force):
        print(f"✓ Schema deleted: the lake at {address} is gone")
    else:
        print(f"✓ Nothing to delete: there is no lake at {address}")


def start_api(host: str | None = None, port: int | None = None) -> None:
    """Run the API in the foreground, until Ctrl+C.

    With ``TIMEDB_FLIGHT_URL`` it speaks to that Flight server, else to an embedded one on the lake of ``TIMEDB_LAKE``.

    Args:
        host: Address to listen on; None: ``TIMEDB_HOST``, else 127.0.0.1.
        port: Port to listen on, 0 takes a free one; None: ``TIMEDB_REST_PORT``, else 8000.

    Raises:
        InvalidRequest: the address is taken.

    Examples:
        >>> td.start_api(port=8000)  # doctest: +SKIP
    """
    service = _start(host, port)
    print("Press Ctrl+C to stop the server", flush=True)
    try:
        service.wait()
    except KeyboardInterrupt:
        print("Stopping...")
    finally:
        stop_api()


def start_api_background(host: str | None = None, port: int | None = None) -> bool:
    """Start the API in this process and go on; it ends with the process, or at :func:`stop_api`.

    Where this process has started it on that address already, and on that lake, it is left as it is.

    Args:
        host: As of :func:`start_api`.
        port: As of :func:`start_api`.

    Returns:
        True once the API answers.

    Raises:
        InvalidRequest: something else has the address: a service of another process, which is not the one that would
            be started, or one of this process on another lake.

    Examples:
        >>> td.start_api_background(port=0)
        Starting TimeDB API server on ...
        True
        >>> td.stop_api()
        ✓ API server on http://127.0.0.1:... stopped
    """
    url = _url_of(host, port)
    if url is not None and (described := describe_api(url)) is not None:
        with _session.lock:
            _refuse_other(url, described.get("instance"), load_settings(ServerSettings, host=host, rest_port=port))
            _session.api_url = url
        print(f"✓ API is already running on {url}")
        return True
    service = _start(host, port)
    if not check_api(service.rest_url):
        stop_api()
        return False
    print("✓ API server started successfully")
    print(f"  Server running at {service.rest_url}")
    print(f"  API docs available at {service.rest_url}/docs")
    print(f"  Arrow Flight at {service.flight_url}")
    if service.lake is not None:
        print(f"  Lake at {service.lake}")
    return True


def check_api(base_url: str | None = None) -> bool:
    """Print what the API says of itself.

    Args:
        base_url: For example ``http://127.0.0.1:8000``; None: the API that was started last, else that of the settings.

    Returns:
        Whether it answers.

    Examples:
        >>> td.check_api(rest_url)
        ✓ API is running
        ...
        True
    """
    url = base_url or _session.api_url or _url_of(None, None) or "http://127.0.0.1:8000"
    described = describe_api(url)
    if described is None:
        print(f"❌ API is not running on {url}!")
        print("   Please start it by running: td.start_api_background()")
        print("   Or in a terminal: timedb api")
        return False
    print("✓ API is running")
    print(f"  Name: {described['name']}")
    print(f"  Version: {described.get('version')}")
    if _session.serving(described.get("instance")) is None:
        print("  Started by: another process")
    print("  Available endpoints:")
    for name, text in described.get("endpoints", {}).items():
        print(f"    - {name}: {text}")
    return True


def stop_api() -> None:
    """Stop every API that this process has started; without one it does nothing.

    Examples:
        >>> td.stop_api()
    """
    for service in _session.stop():
        print(f"✓ API server on {service.rest_url} stopped")


def _refuse_other(url: str, instance: str | None, settings: ServerSettings) -> None:
    """Take nothing for the API that would be started which is not that.

    Raises:
        InvalidRequest: says what it is, and what to do about it.
    """
    found = _session.serving(instance)
    if found is None:
        raise InvalidRequest(
            f"port: a TimeDB API of another process answers at {url}, and its lake may be any; stop it, or take "
            "another port (port=0 is any free one; TIMEDB_REST_PORT); to use that one, td.connect(url) with its Flight "
            "server"
        )
    runs = found.flight_url if found.lake is None else f"the lake {found.lake}"
    wanted = settings.flight_url or f"the lake {settings.lake}"
    if runs != wanted and not (settings.flight_url is None and _same_lake(found.lake, settings.lake)):
        raise InvalidRequest(
            f"port: this process runs an API at {url}, but for {runs} and not for {wanted}; td.stop_api() stops it, or "
            "take another port (port=0 is any free one; TIMEDB_REST_PORT)"
        )


def _start(host: str | None, port: int | None) -> Service:
    from timedb.run.launch import start_gateway

    settings = load_settings(ServerSettings, host=host, rest_port=port)
    print(f"Starting {API_NAME} server on {settings.http_scheme}://{settings.host}:{settings.rest_port}...")
    with _session.lock:
        service = start_gateway(settings)
        _session.add(service)
    print(f"API docs available at {service.rest_url}/docs")
    return service


def _url_of(host: str | None, port: int | None) -> str | None:
    """Where an API of these settings would be found; None if that is only known once it runs."""
    settings = load_settings(ServerSettings, host=host, rest_port=port)
    if settings.rest_port == 0:
        return None
    return url_of(settings.http_scheme, reachable(settings.host), settings.rest_port)


def _same_lake(one: str | None, other: str) -> bool:
    if one is None:
        return False
    path, other_path = local_path(one), local_path(other)
    if path is None or other_path is None:
        return one.rstrip("/") == other.rstrip("/")
    return path.resolve() == other_path.resolve()
