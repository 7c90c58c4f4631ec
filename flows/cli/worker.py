"""The verb that lends this machine to a cluster: worker."""

import os
import sys

import click

from flows.cli.options import chosen, parameter
from flows.running import environment
from flows.settings import Workers
from tasks.settings import ModelRequest


@click.command()
@click.argument("scheduler", metavar="ADDRESS")
@click.option(
    "--processes", type=click.IntRange(1), help="Worker processes. Default: one per core, or as many as feed the GPU."
)
@click.option("--gpu", is_flag=True, help="Offer the resource GPU, so that separations and trainings come here.")
@parameter(Workers, "memory")
def worker(scheduler, processes, gpu, memory) -> None:
    """Run Dask worker processes for the scheduler at ADDRESS (tcp://host:8786) until it ends or Ctrl-C.

    Each process does one track at a time, with --gpu several, which share batches. The run that sends the tracks brings
    the model along.
    """
    from flows.running.cluster import sharing_here

    memory = chosen(Workers, {"memory": memory}).memory
    sharing = sharing_here(ModelRequest() if gpu else None, processes)
    # Torch would take every core in every process.
    os.environ.setdefault("OMP_NUM_THREADS", str(sharing.threads))
    os.environ.update(environment.WORKERS)
    os.environ.update(
        {f"DASK_{name.replace('.', '__').upper()}": str(v) for name, v in environment.WORKER_MEMORY.items()}
    )
    command = [
        # -P: a user's own tasks.py or model/ in the present folder must not be taken for ours.
        sys.executable, "-P", "-m", "distributed.cli.dask_worker", scheduler,
        "--nworkers", str(sharing.processes), "--nthreads", str(sharing.files), "--memory-limit", memory,
        "--no-dashboard", "--death-timeout", "60",
    ]  # fmt: skip
    if gpu:
        command += ["--resources", "GPU=1"]
    os.execv(sys.executable, command)
