"""The same work on a Ray cluster, or on several local processes."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from ..errors import SalattackError

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
        make: run once in each worker, and again where one is lost; returns the function that is
            given the items.
        items: picklable; taken as workers become free.
        workers: how many; None for one a GPU if ``gpus``, else one a core of the cluster.
        gpus: that each worker holds.
        retries: how often an item whose worker was lost is done again; -1 without end.
        lost: gives the output of an item that lost its worker once more than that; None raises.

    A SalattackError says that Ray or a GPU is missing, ``workers`` < 1, or ``make`` failed.
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
    how = {"num_cpus": 1, "num_gpus": gpus, "max_restarts": -1, "max_task_retries": retries}
    actors = [ray.remote(Worker).options(**how).remote() for _ in range(count)]
    free, under_way = list(actors), {}

    def next_done() -> Output:
        ((task,), _) = ray.wait(list(under_way))
        worker, item = under_way.pop(task)
        free.append(worker)
        try:
            return ray.get(task)
        except RayActorError as error:
            if error.actor_init_failed:
                problem = f"no worker can start ({str(error).strip().splitlines()[-1]})"
                advice = "the package and the files must be on every node"
                raise SalattackError(f"{problem}; {advice}") from error
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
