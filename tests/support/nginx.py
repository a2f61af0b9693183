"""nginx in front of a port on loopback, with its configuration."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .programs import Program, free_port, running

CONFIGURATION = """
daemon off;
user {user};
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  {http}
  server {{
    listen 127.0.0.1:{port} {listen};
    {server}
    location / {{
      proxy_pass http://127.0.0.1:{upstream};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      {location}
    }}
  }}
}}
"""


@contextmanager
def nginx(upstream: int, folder: Path, **more: str) -> Iterator[Program]:
    """nginx in front of a port, with more in these parts of its configuration."""
    port, parts = free_port(), {"http": "", "listen": "", "server": "", "location": "", **more}
    written = CONFIGURATION.format(
        user=getpass.getuser(), folder=folder, port=port, upstream=upstream, **parts
    )
    (folder / "nginx.conf").write_text(written)
    command = ("nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"))
    with running(*command, port=port, folder=folder) as program:
        yield program


def tls(certificate: Path) -> dict[str, str]:
    """Return the parts of a configuration for TLS with this certificate, which offers HTTP/2."""
    return {
        "listen": "ssl http2",
        "server": f"ssl_certificate {certificate}; ssl_certificate_key {certificate};",
    }
