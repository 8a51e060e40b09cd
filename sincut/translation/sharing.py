"""An image to an OME-Zarr by processes of this machine, or by the workers of a dask cluster."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Sequence

from sincut.errors import SincutError
from sincut.images.writing.ome_zarr import OmeZarr
from sincut.models.model_file import model_file
from sincut.translation.batches import started
from sincut.translation.cluster import connected
from sincut.translation.shards import ShardedImage, ShardMaker, Tell
from sincut.translation.shared_norms import SharedNorms
from sincut.translation.tasks import Job, Piece, make_piece

_POLL_SECONDS = 0.2
_STARTS = 3  # of a process that ends without having made a shard


class SharedImage(ShardedImage):
    """One input on its way to one OME-Zarr, whose shards others make."""

    def _make(self, output: OmeZarr, maker: ShardMaker, tell: Tell) -> None:
        if self.config.cluster:
            self._on_cluster(output, maker.passes, tell)
        else:
            self._with_workers(output, maker.passes, tell)

    def _with_workers(self, output: OmeZarr, passes: SharedNorms | None, tell: Tell) -> None:
        """Have processes of this machine share the image, and start those again that end."""
        count = self.config.workers
        missing = output.missing()
        done = _done(missing, passes)
        running = {index: self._started(index, count) for index in range(count)}
        begun = dict.fromkeys(running, (1, done))
        try:
            while running:
                time.sleep(_POLL_SECONDS)
                ended = {index for index, each in running.items() if each.poll() is not None}
                missing = output.missing(missing)
                before, done = done, _done(missing, passes)
                for _ in range(done - before):
                    tell()
                for index in ended:
                    process = running[index]
                    del running[index]
                    told, said = (text.strip() for text in process.communicate())
                    if process.returncode == 0:
                        self.notices += json.loads(told)
                        continue
                    starts, then = begun[index]
                    idle = done == then
                    if process.returncode > 0 or (idle and starts == _STARTS):
                        raise SincutError(said or f"worker {index} of {count} ended")
                    # It was killed: what it had not finished is made again.
                    begun[index] = (starts + 1 if idle else 1, done)
                    running[index] = self._started(index, count)
        finally:
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.communicate()

    def _on_cluster(self, output: OmeZarr, passes: SharedNorms | None, tell: Tell) -> None:
        """Have a dask cluster make what is not there."""
        config = self.config.replaced(cluster="", force=False, resume=True, verify=0)
        model = model_file(self.model.path).read_bytes()
        job = Job(model, config.to_dict(), self.source.absolute(), self.target.absolute())
        told: dict[str, None] = {}
        with connected(self.config.cluster, job, "a shard") as cluster:
            for stage in _stages(output, passes):
                for notices in cluster.outcomes(make_piece, stage):
                    told |= dict.fromkeys(notices)
                    tell()
        self.notices += told

    def _started(self, index: int, count: int) -> subprocess.Popen[str]:
        config = self.config.replaced(workers=1, force=False, resume=False)
        job = {
            "model": str(self.model.path),
            "source": str(self.source),
            "target": str(self.target),
            "config": {**config.to_dict(), "shard": f"{index}/{count}", "verify": 0},
        }
        return started(job, count, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _done(missing: Sequence[int], passes: SharedNorms | None) -> int:
    """Something that grows by one with every shard, and every part of a pass, that is there."""
    return (passes.done() if passes is not None else 0) - len(missing)


def _stages(output: OmeZarr, passes: SharedNorms | None) -> Iterator[list[Piece]]:
    """What is not there, in stages of which each begins when the one before is done."""
    todo = output.missing()
    for number in range(passes.count if passes is not None and todo else 0):
        assert passes is not None
        yield [Piece(part, number) for part in passes.missing(number)]
    yield [Piece(shard) for shard in todo]
