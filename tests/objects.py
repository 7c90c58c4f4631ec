"""An object store over HTTP on loopback, for tests of s3:// paths."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_SETTINGS = {
    "AWS_ACCESS_KEY_ID": "unbraid", "AWS_SECRET_ACCESS_KEY": "unbraid", "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}  # fmt: skip


@contextmanager
def object_store(bucket: str) -> Iterator[str]:
    """The URL of an empty bucket on a separate server, to which the environment points meanwhile."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            host, port = server.get_host_and_port()
            for name, value in {**_SETTINGS, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
                patch.setenv(name, value)
            patch.delenv("AWS_PROFILE", raising=False)
            import s3fs

            s3fs.S3FileSystem.clear_instance_cache()
            s3fs.S3FileSystem().mkdir(bucket)
            yield f"s3://{bucket}"
            s3fs.S3FileSystem.clear_instance_cache()
    finally:
        server.stop()
