"""The same work on a Ray cluster, or on several local processes: one model in each worker.

Ray starts actors that die anew and does their task again. Here is only what feeds them
(back-pressure: no more tasks than workers are under way).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TypeVar

from .attacks import Attack
from .errors import SalattackError
from .evaluation import Batch, Result, Tick, measure
from .study import Study

Item = TypeVar("Item")
Output = TypeVar("Output")


def map_on_ray(
    make: Callable[[], Callable[[Item], Output]],
    items: Iterable[Item],
    *,
    workers: int | None = None,
    gpus: float = 0,
    retries: int = -1,
    lost: Callable[[Item], Output] | None = None,
) -> Iterator[Output]:
    """Yield the output of every item once, in the order in which they are done.

    Ray finds its cluster by ``RAY_ADDRESS``; without one it is started on this machine.

    Args:
        make: run once in each worker; returns the function that is given the items. Where a worker
            is lost, both are run again elsewhere.
        items: picklable; taken as workers become free.
        workers: how many; None for one a GPU if ``gpus``, else one a core of the cluster.
        gpus: that each worker holds.
        retries: how often an item is done again whose worker was lost; -1 without end.
        lost: gives the output of an item that lost its worker once more than that; None raises.

    Raises:
        SalattackError: Ray is not installed, the cluster has no such GPUs, ``workers`` < 1, or
            ``make`` failed in a worker.
    """
    try:
        import ray
        from ray.exceptions import RayActorError
    except ImportError as error:
        raise SalattackError("--engine ray needs Ray: pip install 'salattack[ray]'") from error
    if workers is not None and workers < 1:
        raise SalattackError(f"workers must be ≥ 1, got {workers}")
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level="error")

    class Worker:
        def __init__(self) -> None:
            self.work = make()

        def do(self, item: Item) -> Output:
            return self.work(item)

    there = ray.cluster_resources()
    count = workers or int(there.get("GPU", 0) / gpus if gpus else there.get("CPU", 1))
    if count < 1:
        raise SalattackError("the cluster has no GPU for the workers; give --device cpu")
    actor = ray.remote(Worker).options(
        num_cpus=1, num_gpus=gpus, max_restarts=-1, max_task_retries=retries
    )
    actors = [actor.remote() for _ in range(count)]
    free, under_way = list(actors), {}

    def next_done() -> Output:
        ((task,), _) = ray.wait(list(under_way))
        worker, item = under_way.pop(task)
        free.append(worker)
        try:
            return ray.get(task)
        except RayActorError as error:
            if error.actor_init_failed:
                raise SalattackError(
                    f"no worker can start ({str(error).strip().splitlines()[-1]}); "
                    "the package and the files must be on every node"
                ) from error
            if lost is None:
                raise
            return lost(item)

    try:
        for item in items:
            if not free:
                yield next_done()
            worker = free.pop()
            under_way[worker.do.remote(item)] = worker, item
        while under_way:
            yield next_done()
    finally:
        for worker in actors:
            ray.kill(worker)


def measure_on_ray(
    study: Study,
    attacks: Mapping[str, Attack],
    batches: Iterable[Batch],
    tick: Tick,
    *,
    open_study: Callable[[], Study],
    workers: int | None = None,
) -> Iterator[Result]:
    """Measure batches on a Ray cluster: the engine of `salattack.evaluation.evaluate`.

    Batches carry their faces. Every worker opens the study itself, so the files that
    ``open_study`` reads must be there on every node.

    Args:
        study: as here; its device says whether workers need a GPU.
        attacks: name → attacker.
        batches: what is to be measured.
        tick: called with the number of gradients as batches come back.
        open_study: opens the same study in a worker.
        workers: see `map_on_ray`.
    """
    gpus = 1 if study.device.type == "cuda" else 0
    make = partial(_measurer, open_study, dict(attacks))
    for results, gradients in map_on_ray(make, batches, workers=workers, gpus=gpus):
        tick(gradients)
        yield from results


def _measurer(
    open_study: Callable[[], Study], attacks: Mapping[str, Attack]
) -> Callable[[Batch], tuple[list[Result], int]]:
    study = open_study()

    def work(batch: Batch) -> tuple[list[Result], int]:
        done: list[int] = []
        results = list(measure(study, attacks, batch, done.append))
        return results, sum(done)

    return work
