"""Independent references that tests compare with."""

import importlib.util
from functools import cache


@cache
def museval_metrics():
    """museval's metrics module by file: `import museval` itself wants ffmpeg on the PATH."""
    package = importlib.util.find_spec("museval")
    path = package.submodule_search_locations[0] + "/metrics.py"
    spec = importlib.util.spec_from_file_location("museval_metrics", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
