"""A Python without a network: whoever has this folder in PYTHONPATH can only speak to itself.

Python runs this file at every start, and no later code can take an audit hook away. The kernels of
the notebooks are started so, and so is every Python that they start.
"""

import sys

HERE = ("localhost", "127.0.0.1", "::1", "", None)
ADDRESS = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1}
HOST = {"socket.getaddrinfo": 0, "socket.gethostbyname": 0, "socket.gethostbyaddr": 0}


def refuse(event: str, arguments: tuple) -> None:
    """Raise an error where a socket is about to reach another machine, or to look one up."""
    if event in ADDRESS:
        address = arguments[ADDRESS[event]]
        host = address[0] if isinstance(address, tuple) else None  # a path is this machine's
    elif event in HOST:
        host = arguments[HOST[event]]
    else:
        return
    if (host.decode() if isinstance(host, bytes) else host) not in HERE:
        raise PermissionError(f"a notebook makes no network call, and this is one: {event} {host}")


sys.addaudithook(refuse)
