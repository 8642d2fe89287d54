"""Opens everything that a run needs, and closes it again: for a new run, a resume or a replay."""

import contextlib
import datetime
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import git

from agentgolf import __version__
from agentgolf.config import Settings
from agentgolf.course import Course, load_course, repo_files
from agentgolf.data import NO_DOCUMENTS, data_file, load_documents, write_training_data
from agentgolf.decide.stop import Costs, fits
from agentgolf.domain import Clock, RunState, Slot
from agentgolf.duration import format_duration
from agentgolf.errors import CourseError, EnvironmentNotReadyError, InterruptedRunError, UsageError
from agentgolf.ledger.calls import TrialCalls
from agentgolf.ledger.lineage import find_run
from agentgolf.ledger.store import Ledger, Row
from agentgolf.loop.auditor import Auditor, Audits
from agentgolf.loop.bench import Bench
from agentgolf.loop.budget import Budget, first_guess
from agentgolf.loop.campaign import Campaign
from agentgolf.loop.cassette import NO_TAPE, Tape
from agentgolf.loop.crew import Crew
from agentgolf.loop.examiner import Examiner
from agentgolf.loop.home import find_course, find_scaffold, is_shipped, shipped
from agentgolf.loop.mailbox import Mailbox
from agentgolf.loop.observer import Observer
from agentgolf.loop.pacing import Pacing
from agentgolf.loop.prices import load_prices
from agentgolf.loop.proposing import Proposing
from agentgolf.loop.scaffolds import require_program
from agentgolf.patch.workspace import GitStore, require_clean
from agentgolf.proposer.keys import look_up, take
from agentgolf.proposer.scaffold import SCAFFOLD_FILE, Scaffold, load_scaffold, read_spec
from agentgolf.sandbox.base import Sandbox
from agentgolf.sandbox.clock import SpeedMeter
from agentgolf.sandbox.docker import DockerSandbox
from agentgolf.sandbox.process import ProcessSandbox
from agentgolf.sandbox.slots import leased_slots
from agentgolf.shards import load_shards


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What the user asked of a new run."""

    settings: Settings
    budget_seconds: float | None
    trials: int | None
    name: str | None
    max_cost_usd: float | None = None
    max_model_tokens: int | None = None


def run_folder(runs: Path, name: str) -> Path:
    return runs / name


def open_course(settings: Settings) -> Course:
    """Find, read and check the course; a user's folder must be committed in git."""
    if shutil.which("git") is None:
        raise EnvironmentNotReadyError("git is not installed; run: apt-get install git")
    folder = find_course(settings.course)
    course = load_course(folder, settings.track)
    if not is_shipped(folder):
        require_clean(folder)
    return course


def take_keys(scaffolds: Iterable[str]) -> None:
    """Take the keys that these scaffolds name out of the environment, before any program is started."""
    for scaffold in scaffolds:
        spec = read_spec(find_scaffold(scaffold) / SCAFFOLD_FILE)
        take(spec.model.key_variable)
        for variable in spec.command.environment:
            look_up(variable)


def open_scaffold(
    name: str, course: Course, note: Callable[[str], None] = lambda _: None, *, needs_key: bool = True
) -> Scaffold:
    """The scaffold, with the course's own playbook if it has one, else the shipped one."""
    playbook = course.folder / course.spec.playbook if course.spec.playbook else shipped("prompts") / "playbook"
    require_program(find_scaffold(name))
    return load_scaffold(find_scaffold(name), playbook, shipped("prompts") / "common", note, needs_key=needs_key)


def create_run(ledger: Ledger, request: RunRequest, course: Course, slots: list[Slot], sandbox: Sandbox) -> Row:
    """Write the run's row; its git store exists before it. Raises `UsageError` on a taken name or a tiny budget."""
    _require_room(course, request, len(slots))
    name = request.name or f"{course.name}-{datetime.datetime.now():%m%d-%H%M%S}"
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or len(name) > 60:
        raise UsageError(f"{name!r} cannot name a run: use letters, digits, dots, - and _, 60 at most")
    if ledger.rows("SELECT 1 FROM runs WHERE name = ?", name):
        raise UsageError(
            f"there is a run {name!r} already; go on with `agentgolf resume {name}` or give another --name"
        )
    store = GitStore(run_folder(ledger.folder, name) / "store.git")
    origin = store.commit_files(
        {file: (course.repo / file).read_bytes() for file in repo_files(course.repo)},
        f"the course {course.name}",
    )
    store.set_ref("refs/agentgolf/origin", origin)
    store.close()
    ledger.start_run(
        name=name,
        course=course.name,
        track=course.track,
        course_sha256=course.sha256,
        course_json=course.to_json(),
        course_folder=str(course.folder),
        scaffold=request.settings.scaffold,
        sandbox=sandbox.name,
        image_id=sandbox.image_id,
        jobs=len(slots),
        seed=request.settings.seed,
        budget_seconds=request.budget_seconds,
        trials_limit=request.trials,
        max_cost_usd=request.max_cost_usd,
        max_model_tokens=request.max_model_tokens,
        origin_commit=origin,
        agentgolf_version=__version__,
    )
    return find_run(ledger, name)


def _require_room(course: Course, request: RunRequest, jobs: int) -> None:
    if request.budget_seconds is None:
        return
    spec = course.spec.decision
    costs = Costs(replicate_seconds=first_guess(course), jobs=jobs)
    least = spec.baseline_replicates + 2 * spec.looks[0] + 2 * spec.final_replicates
    if not fits(request.budget_seconds, costs, least, 0.0):
        needed = (
            costs.replicates(spec.baseline_replicates)
            + costs.replicates(2)
            + costs.replicates(2 * spec.final_replicates)
        )
        raise UsageError(
            f"a budget of {format_duration(request.budget_seconds)} is shorter than one trial: baseline, one trial and "
            f"the final measurement take about {format_duration(needed)} on the track {course.track}; "
            "give more, or choose a shorter track"
        )


def reopen_course(row: Row) -> Course:
    """The course of a run being resumed. Raises `CourseError` when it has changed since."""
    folder = Path(row["course_folder"])
    if not folder.is_dir():
        folder = find_course(row["course"])
    course = load_course(folder, row["track"])
    if course.sha256 != row["course_sha256"]:
        raise CourseError(
            f"the course {row['course']} at {folder} has changed since the run {row['name']} began, so scores would "
            "not compare; restore it, or start a new run"
        )
    return course


def resumable_run(ledger: Ledger, name: str | None) -> Row:
    """The named run, or the newest that is not finished. Raises `UsageError`."""
    if name is None:
        rows = ledger.rows("SELECT * FROM runs WHERE state = 'open' ORDER BY id DESC LIMIT 1")
        if not rows:
            raise UsageError("no run waits to be resumed; start one: agentgolf run")
        return rows[0]
    row = find_run(ledger, name)
    if row["state"] == RunState.FINISHED:
        raise UsageError(f"the run {name!r} is finished; see: agentgolf tree {name}")
    return row


@contextlib.contextmanager
def open_sandbox(kind: str, course: Course, scaffold: str, *, unsafe: bool = False) -> Iterator[Sandbox]:
    """`docker`, `process`, or `auto`: Docker if its engine answers and has the course's image, else process.

    Raises `EnvironmentNotReadyError` with the fix when the chosen one cannot be used, or has no walls and
    would run what the scaffold's proposers made of code that nobody has read, unless `unsafe`.
    """
    meter = SpeedMeter() if course.limits.clock is Clock.REFERENCE else None
    try:
        sandbox = _choose_sandbox(kind, course, meter)
        if not (sandbox.isolates or unsafe or trusted(scaffold, course)):
            raise EnvironmentNotReadyError(
                f"the scaffold {scaffold!r} proposes code that nobody has read, and nothing here keeps it from your "
                "files and the network: install bubblewrap or Docker, or add --i-know-this-is-unsafe"
            )
        yield sandbox
    finally:
        if meter is not None:
            meter.close()


def trusted(scaffold: str, course: Course) -> bool:
    """Whether a run's candidates can only be what agentgolf's own offline proposers make."""
    try:
        return open_scaffold(scaffold, course, needs_key=False).trusted
    except UsageError:  # a folder of the user's that is gone
        return False


def _choose_sandbox(kind: str, course: Course, meter: SpeedMeter | None) -> Sandbox:
    if kind in ("auto", "docker"):
        try:
            docker = DockerSandbox(course.spec.image, meter)
            docker.prepare()
            return docker
        except EnvironmentNotReadyError:
            if kind == "docker":
                raise
    process = ProcessSandbox(meter)
    process.prepare()
    return process


def hidden_paths(course: Course) -> tuple[Path, ...]:
    """Folders of the interpreter's environment in which held-out text lies."""
    return (data_file(course).parent.resolve(),) if course.spec.data and course.spec.data.package else ()


@contextlib.contextmanager
def open_bench(folder: Path, name: str, course: Course, sandbox: Sandbox, ledger: Ledger) -> Iterator[Bench]:
    """A bench whose scratch is gone afterwards; `folder` is the run's."""
    folder = folder.resolve()
    work = folder / "work" / uuid.uuid4().hex[:8]
    work.mkdir(parents=True)
    shards = load_shards(course, folder / "data") if course.spec.shards else None
    documents = NO_DOCUMENTS if shards else load_documents(course)
    try:
        yield Bench(
            run=name,
            course=course,
            documents=documents,
            sandbox=sandbox,
            blobs=ledger.blobs,
            data=folder / "data" if shards else write_training_data(documents, folder / "data"),
            work=work,
            hidden=hidden_paths(course),
            shards=shards,
            ledger=ledger.tag,
        )
    finally:
        shutil.rmtree(work, ignore_errors=True)


def reconcile(ledger: Ledger, row: Row, sandbox: Sandbox, observer: Observer) -> None:
    """End what an earlier process of this run left running, and remove its scratch."""
    if row["image_id"] not in (None, sandbox.image_id):
        observer.note("the image is not the one that this run began with: its scores may not compare")
    for found in sandbox.reap({"run": row["name"], "ledger": ledger.tag}):
        observer.note(f"removed {found}, left by an earlier process")
    shutil.rmtree(run_folder(ledger.folder, row["name"]) / "work", ignore_errors=True)


@contextlib.contextmanager
def open_campaign(
    ledger: Ledger,
    row: Row,
    course: Course,
    sandbox: Sandbox,
    slots: list[Slot],
    observer: Observer,
    prices: Path | None = None,
    tape: Tape = NO_TAPE,
) -> Iterator[Campaign]:
    """Everything of one run, from its row in the ledger; `prices` is the user's own table."""
    reconcile(ledger, row, sandbox, observer)
    folder = run_folder(ledger.folder, row["name"])
    scaffold = open_scaffold(row["scaffold"], course, observer.note, needs_key=tape.recording is None)
    table = load_prices(prices)
    if row["max_cost_usd"] is not None and scaffold.model is not None and scaffold.model not in table:
        raise UsageError(
            f"no price is known for {scaffold.model}, so --max-cost cannot be kept; add it to a price table"
        )
    with open_bench(folder, row["name"], course, sandbox, ledger) as bench:
        budget = Budget(ledger, row["id"], row["budget_seconds"])
        mailbox = Mailbox()
        crew = Crew(bench=bench, ledger=ledger, budget=budget, slots=slots, observer=observer, mailbox=mailbox)
        store = GitStore(folder / "store.git")
        proposing = Proposing(
            row=row,
            course=course,
            ledger=ledger,
            store=store,
            scaffold=scaffold,
            crew=crew,
            mailbox=mailbox,
            observer=observer,
            calls_of=lambda number: TrialCalls(ledger, row, number, table),
            tape=tape,
        )
        auditor, jobs, wait = _audits(row, course, ledger, store, crew), len(slots), False
        pacing = Pacing(row=row, course=course, ledger=ledger, auditor=auditor, budget=budget, jobs=jobs)
        try:
            yield Campaign(
                row=row,
                course=course,
                ledger=ledger,
                store=store,
                proposing=proposing,
                crew=crew,
                auditor=auditor,
                budget=budget,
                pacing=pacing,
                observer=observer,
                jobs=jobs,
            )
            wait = True
        except InterruptedRunError:
            wait = True
            raise
        except git.GitError as error:
            said = str(error).strip().splitlines()[-1].strip(" '")
            raise EnvironmentNotReadyError(f"git failed in {store.path}: {said}; then: agentgolf resume") from error
        finally:
            proposing.close(wait=wait and not crew.killed.is_set())
            store.close()


def _audits(row: Row, course: Course, ledger: Ledger, store: GitStore, crew: Crew) -> Audits:
    if course.spec.scorer == "self_reported":
        return Examiner(ledger=ledger, store=store, crew=crew, exam_seconds=first_guess(course))
    return Auditor(row=row, course=course, ledger=ledger, store=store, crew=crew)


def slots_for(course: Course, jobs: int | None) -> contextlib.AbstractContextManager[list[Slot]]:
    """Where the course's trainings run; GPUs are held for as long as the block lasts."""
    return leased_slots(threads=course.limits.threads, gpus=course.limits.gpus, jobs=jobs)
