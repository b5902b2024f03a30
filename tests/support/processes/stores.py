"""An S3-like store of a test's own, served on this machine."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec

BUCKET = "sweeps"


def missing() -> str:
    """What the store or its client needs and is not installed; "" where all is there."""
    absent = [name for name in ("moto", "flask", "s3fs", "boto3") if find_spec(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


@contextmanager
def s3(address: str = "127.0.0.1") -> Iterator[Mapping[str, str]]:
    """Environment in which `s3://sweeps` is a bucket in a server on this machine."""
    import boto3
    from moto.server import ThreadedMotoServer

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = ThreadedMotoServer(address, port, verbose=False)
    server.start()
    try:
        environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        client = boto3.client(
            "s3",
            endpoint_url=environment["AWS_ENDPOINT_URL"],
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=BUCKET)
        client.close()
        yield environment
    finally:
        server.stop()
