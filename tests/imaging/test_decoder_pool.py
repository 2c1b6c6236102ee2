"""Photos that ask for too much cost their decoder process, and nothing else."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catsdogs_lib.imaging import decoder_process
from catsdogs_lib.imaging.decoder_pool import DecoderPool
from catsdogs_lib.imaging.decoder_process import PhotoLimits
from catsdogs_lib.imaging.decoding import NotAnImageError, PhotoTooLargeError, UndecodableError
from catsdogs_lib.imaging.statistics import square_with_statistics

ROOT = Path(__file__).parents[2]
LIMITS = PhotoLimits(cpu_seconds=0.3, wall_seconds=3.0, memory_bytes=100_000_000)
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems enforce no limit on memory")


def misbehave(source, order, amount=0):
    """Stand for a decoder that follows the orders of a hostile photo."""
    if order == "spin":
        end = time.process_time() + amount
        while time.process_time() < end:
            pass
    elif order == "sleep":
        time.sleep(amount)
    elif order == "allocate":
        return len(bytearray(amount)), b""
    elif order == "leak":
        LEAKED.append(bytearray(amount))
    elif order == "crash":
        ctypes.string_at(0)
    elif order == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif order == "fail":
        raise KeyError("a mistake of ours")
    return [os.getpid(), len(source) if isinstance(source, bytes) else str(source)], bytes(int(amount))


LEAKED = []


@pytest.fixture
def pool():
    with DecoderPool(misbehave, 1, LIMITS) as pool:
        yield pool


def test_a_photo_and_its_pixels_pass_through_whole(pool):
    photo = os.urandom(5_000_000)
    (_, length), pixels = pool.call(photo, "echo", 3_000_000)
    assert (length, len(pixels)) == (len(photo), 3_000_000)
    (_, path), _ = pool.call(Path("here\udcff.jpg"), "echo")
    assert path == str(Path.cwd() / "here\udcff.jpg")


@pytest.mark.parametrize(
    ("order", "amount", "error", "cause"),
    [
        ("spin", 5, PhotoTooLargeError, "more than 0.3 s of processor time"),
        ("allocate", 300_000_000, PhotoTooLargeError, "more memory"),
        ("crash", 0, UndecodableError, "SIGSEGV"),
        ("die", 0, PhotoTooLargeError, "too little memory"),
    ],
)
def test_a_photo_that_exceeds_a_limit_is_refused_and_the_next_is_answered(pool, order, amount, error, cause):
    before = pool.call(b"", "echo")
    with pytest.raises(error, match=cause):
        pool.call(b"", order, amount)
    after = pool.call(b"", "echo")
    assert before[0][0] != after[0][0] or order == "allocate"


def test_a_decoder_that_waits_for_ever_is_ended():
    with DecoderPool(misbehave, 1, PhotoLimits(wall_seconds=0.2)) as pool:
        with pytest.raises(PhotoTooLargeError, match=r"more than 0\.2 s of time"):
            pool.call(b"", "sleep", 60)
        assert pool.call(b"photo", "echo")[0][1] == 5


def test_limits_hold_for_each_photo_and_not_for_all_of_them(pool):
    first = [pool.call(b"", "spin", 0.2)[0][0] for _ in range(3)]
    assert [pool.call(b"", "allocate", 80_000_000)[0] for _ in range(5)] == [80_000_000] * 5
    assert len(set(first)) == 1


def test_the_copies_of_a_photo_count(pool):
    assert pool.call(b"", "allocate", 80_000_000)[0] == 80_000_000
    with pytest.raises(PhotoTooLargeError, match="more memory"):
        pool.call(bytes(20_000_000), "allocate", 80_000_000)


def test_a_worker_that_has_grown_is_replaced(pool):
    before = pool.call(b"", "leak", 40_000_000)[0][0]
    assert pool.call(b"", "allocate", 80_000_000)[0] == 80_000_000
    assert pool.call(b"", "echo")[0][0] != before


def test_a_worker_killed_while_idle_costs_no_photo(pool):
    worker = pool.call(b"", "echo")[0][0]
    os.kill(worker, signal.SIGKILL)
    assert pool.call(b"photo", "echo")[0][1] == 5


def test_a_mistake_of_ours_is_no_fault_of_the_photo(pool):
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        pool.call(b"", "fail")
    assert pool.call(b"photo", "echo")[0][1] == 5


def test_threads_share_the_processes():
    with DecoderPool(misbehave, 2, LIMITS) as pool, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda number: pool.call(bytes(number), "spin", 0.001), range(100)))
    assert [length for (_, length), _ in answers] == list(range(100))
    assert len({worker for (worker, _), _ in answers}) == 2


def parent_command(process):
    parent = Path(f"/proc/{process}/stat").read_text().split()[3]
    return Path(f"/proc/{parent}/cmdline").read_text()


def test_beside_other_threads_processes_start_from_a_fresh_interpreter():
    # A lock that another thread holds would stay locked in a forked process.
    release = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        threads.submit(release.wait)
        with DecoderPool(misbehave, 1, LIMITS) as spawned:
            assert "decoder_process" in parent_command(spawned.call(b"", "echo")[0][0])
            with pytest.raises(UndecodableError, match="SIGSEGV"):
                spawned.call(b"", "crash")
            assert spawned.call(b"photo", "echo")[0][1] == 5
        release.set()


def test_no_process_is_left_behind(pool):
    worker = pool.call(b"", "echo")[0][0]
    pool.close()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{worker}").exists()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_forked_from_this_one_does_not_keep_the_workers_alive(pool):
    worker = pool.call(b"", "echo")[0][0]
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(writing)
        os.read(reading, 1)  # until the parent has closed its end
        os._exit(0)
    try:
        closing = threading.Thread(target=pool.close)
        closing.start()
        closing.join(5)
        assert not closing.is_alive()
        assert not Path(f"/proc/{worker}").exists()
    finally:
        os.close(writing)
        os.waitpid(child, 0)
        os.close(reading)


def test_an_interrupt_while_a_process_starts_mixes_no_replies_up(pool, monkeypatch):
    def interrupted(stream):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(decoder_process, "receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.call(b"one", "echo")
    assert [pool.call(bytes(length), "echo")[0][1] for length in (5, 7)] == [5, 7]


FORKED = """
import os, signal, socket, sys, threading
from pathlib import Path
from catsdogs_lib.imaging.decoder_pool import DecoderPool
from catsdogs_lib.imaging.statistics import square_with_statistics
listener = socket.create_server(("127.0.0.1", 0))
pool = DecoderPool(square_with_statistics, 2)
children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
(_, width, *_), pixels = pool.call(Path(sys.argv[1]), 32)
grandchild = Path(f"/proc/{children[-1]}/task/{children[-1]}/children").read_text().split()[0]
descriptors = [os.readlink(link) for link in Path(f"/proc/{grandchild}/fd").iterdir()]
print(len(children), width, len(pixels), sum("socket" in name for name in descriptors), len(descriptors))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_forked_at_the_start_hold_nothing_of_their_parent_and_end_with_it(tmp_path, plain_environment):
    Image.new("RGB", (40, 40)).save(tmp_path / "photo.png")
    command = [sys.executable, "-W", "error", "-c", FORKED, str(tmp_path / "photo.png")]
    # communicate() waits until nobody holds the pipes any more.
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=plain_environment, timeout=30)
    assert (done.stdout.split(), done.stderr) == (["2", "40", "3072", "1", "4"], "")


def test_pixels_and_statistics_are_those_of_this_process(pool, tmp_path):
    noise = np.random.default_rng(3).integers(0, 255, (90, 70, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.jpg")
    data = (tmp_path / "photo.jpg").read_bytes()
    here = square_with_statistics(data, 32)
    with DecoderPool(square_with_statistics, 1) as decoders:
        for source in (data, tmp_path / "photo.jpg"):
            statistics, pixels = decoders.call(source, 32)
            assert (tuple(statistics), pixels) == (tuple(here[0]), here[1])
        with pytest.raises(NotAnImageError, match="not a photo"):
            decoders.call(b"no photo", 32)


WORKERS = """
import os, sys, threading
from pathlib import Path
from catsdogs_lib.data.checks import check_packed
from catsdogs_lib.imaging.decoder_pool import DecoderPool
from catsdogs_lib.imaging.statistics import square_with_statistics
def below(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
threading.Thread(target=threading.Event().wait, daemon=True).start()
for decode, argument in ((square_with_statistics, 224), (check_packed, 1)):
    with DecoderPool(decode, 1) as pool:
        pool.call(Path(sys.argv[1]), argument)
        (keeper,) = below(os.getpid())
        workers = below(keeper)
        for _ in range(3):
            pool.call(Path(sys.argv[1]), argument)
        print(workers == below(keeper))
"""


def test_an_ordinary_photo_does_not_wear_its_worker_out(tmp_path, plain_environment):
    noise = np.random.default_rng(3).integers(0, 255, (600, 800, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.jpg")
    command = [sys.executable, "-c", WORKERS, str(tmp_path / "photo.jpg")]
    environment = {**plain_environment, "OMP_NUM_THREADS": "8", "OPENBLAS_NUM_THREADS": "8"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60)
    assert done.stdout.split() == ["True", "True"], done.stderr


def in_mounts_of_its_own(change):
    """Return the command that runs another after a change to the mounts that it sees."""
    command = ["unshare", "--mount", "sh", "-c", f'{change} && exec "$@"', "sh"]
    if os.geteuid() or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("needs root and mount namespaces")
    return command


def test_without_shared_memory_photos_are_decoded(tmp_path, plain_environment):
    Image.new("RGB", (40, 40)).save(tmp_path / "photo.png")
    # As on Lambda, no semaphore and no shared memory can be made there.
    unusable = in_mounts_of_its_own("mount -t tmpfs -o ro none /dev/shm")
    command = [*unusable, sys.executable, "-c", FORKED, str(tmp_path / "photo.png")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=plain_environment, timeout=30)
    assert (done.stdout.split()[:3], done.stderr) == (["2", "40", "3072"], "")


UNLIMITED = """
import sys
from pathlib import Path
from catsdogs_lib.imaging.decoder_pool import DecoderPool
from catsdogs_lib.imaging.statistics import square_with_statistics
with DecoderPool(square_with_statistics, 2) as pool:
    for _ in range(2):
        print(len(pool.call(Path(sys.argv[1]), 32)[1]))
"""


def test_where_memory_cannot_be_limited_one_line_says_so(tmp_path, plain_environment):
    Image.new("RGB", (40, 40)).save(tmp_path / "photo.png")
    # Without /proc a process does not know its own size.
    hidden = in_mounts_of_its_own("mount -t tmpfs none /proc")
    command = [*hidden, sys.executable, "-c", UNLIMITED, str(tmp_path / "photo.png")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=plain_environment, timeout=30)
    assert done.stdout.split() == ["3072", "3072"], done.stderr
    (line,) = done.stderr.splitlines()
    assert "does not limit the memory" in line
