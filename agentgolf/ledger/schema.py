"""The ledger's tables, views and triggers, as numbered migrations.

The names read well in Datasette: every table has a view or a foreign key that explains its numbers.
"""

import sqlite3

from agentgolf.errors import LedgerError

_FIRST = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    course TEXT NOT NULL,
    track TEXT NOT NULL,
    course_sha256 TEXT NOT NULL,
    course_json TEXT NOT NULL,
    course_folder TEXT NOT NULL,
    scaffold TEXT NOT NULL,
    sandbox TEXT NOT NULL,
    jobs INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    budget_seconds REAL,
    trials_limit INTEGER,
    origin_commit TEXT NOT NULL,
    agentgolf_version TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'finished')),
    started_at TEXT NOT NULL,
    finished_at TEXT
);
-- One row a process that worked on the run: what it spent of the budget survives it.
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,
    run_id INTEGER NOT NULL REFERENCES runs(id),
    pid INTEGER NOT NULL,
    started_at TEXT NOT NULL,
    seen_at TEXT NOT NULL,
    spent_seconds REAL NOT NULL
);
CREATE TABLE blobs (
    sha256 TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    bytes INTEGER NOT NULL
);
CREATE TABLE trials (
    id INTEGER PRIMARY KEY,
    run_id INTEGER NOT NULL REFERENCES runs(id),
    number INTEGER NOT NULL,
    parent_id INTEGER REFERENCES trials(id),
    state TEXT NOT NULL CHECK (state IN ('proposed', 'applied', 'decided')),
    proposer TEXT NOT NULL,
    technique TEXT NOT NULL,
    hypothesis TEXT NOT NULL,
    edits_json TEXT NOT NULL,
    base_commit TEXT NOT NULL,
    detail_json TEXT NOT NULL,
    commit_sha TEXT,
    tree_sha TEXT,
    fingerprint TEXT,
    diff_sha256 TEXT REFERENCES blobs(sha256),
    outcome TEXT,
    verdict TEXT CHECK (verdict IN ('keep', 'revert', 'undecided')),
    reason TEXT,
    val_bpb REAL,
    gain_bpb REAL,
    gain_low REAL,
    gain_high REAL,
    p_value REAL,
    counted_bytes INTEGER,
    proposed_at TEXT NOT NULL,
    applied_at TEXT,
    decided_at TEXT,
    UNIQUE (run_id, number),
    CHECK (state != 'decided' OR (outcome IS NOT NULL AND verdict IS NOT NULL))
);
-- Runs of a candidate with one seed. purpose: baseline, search (a candidate's own), paired (the incumbent
-- again, beside a candidate), final (fresh seeds, held-out B).
CREATE TABLE replicates (
    id INTEGER PRIMARY KEY,
    trial_id INTEGER NOT NULL REFERENCES trials(id),
    for_trial_id INTEGER NOT NULL REFERENCES trials(id),
    purpose TEXT NOT NULL CHECK (purpose IN ('baseline', 'search', 'paired', 'final')),
    position INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    heldout TEXT NOT NULL CHECK (heldout IN ('A', 'B')),
    state TEXT NOT NULL CHECK (state IN ('launched', 'collected', 'scored')),
    outcome TEXT,
    message TEXT,
    artifact_sha256 TEXT REFERENCES blobs(sha256),
    artifact_bytes INTEGER,
    code_bytes INTEGER,
    val_bpb REAL,
    total_nats REAL,
    text_bytes INTEGER,
    tokens INTEGER,
    score_kind TEXT,
    train_seconds REAL,
    eval_seconds REAL,
    wall_seconds REAL,
    launched_at TEXT NOT NULL,
    collected_at TEXT,
    scored_at TEXT,
    UNIQUE (trial_id, for_trial_id, purpose, position),
    CHECK (state != 'scored' OR outcome IS NOT NULL),
    CHECK (outcome IS NULL OR outcome != 'ok' OR val_bpb IS NOT NULL)
);
CREATE TABLE executions (
    replicate_id INTEGER NOT NULL REFERENCES replicates(id),
    role TEXT NOT NULL CHECK (role IN ('train', 'encode', 'predict')),
    outcome TEXT NOT NULL,
    exit_code INTEGER,
    wall_seconds REAL NOT NULL,
    cpu_seconds REAL NOT NULL,
    clock_seconds REAL NOT NULL,
    peak_memory_bytes INTEGER NOT NULL,
    log_sha256 TEXT REFERENCES blobs(sha256),
    message TEXT NOT NULL,
    PRIMARY KEY (replicate_id, role)
);
CREATE INDEX replicates_by_trial ON replicates(trial_id);
CREATE INDEX trials_by_parent ON trials(parent_id);

CREATE TRIGGER decided_trials_stay BEFORE UPDATE ON trials WHEN old.state = 'decided'
BEGIN SELECT RAISE(ABORT, 'a decided trial is immutable'); END;
CREATE TRIGGER trials_are_kept BEFORE DELETE ON trials
BEGIN SELECT RAISE(ABORT, 'trials are never deleted'); END;
CREATE TRIGGER scored_replicates_stay BEFORE UPDATE ON replicates WHEN old.state = 'scored'
BEGIN SELECT RAISE(ABORT, 'a scored replicate is immutable'); END;
CREATE TRIGGER replicates_are_kept BEFORE DELETE ON replicates
BEGIN SELECT RAISE(ABORT, 'replicates are never deleted'); END;
CREATE TRIGGER executions_stay BEFORE UPDATE ON executions
BEGIN SELECT RAISE(ABORT, 'executions are immutable'); END;
CREATE TRIGGER executions_are_kept BEFORE DELETE ON executions
BEGIN SELECT RAISE(ABORT, 'executions are never deleted'); END;
CREATE TRIGGER finished_runs_stay BEFORE UPDATE ON runs WHEN old.state = 'finished'
BEGIN SELECT RAISE(ABORT, 'a finished run is immutable'); END;

CREATE VIEW lineage AS
SELECT runs.name AS run, trials.number AS trial, parents.number AS parent, trials.proposer, trials.technique,
       trials.hypothesis, trials.outcome, trials.verdict, round(trials.val_bpb, 4) AS val_bpb,
       round(trials.gain_bpb, 4) AS gain_bpb, round(trials.gain_low, 4) AS gain_low,
       round(trials.gain_high, 4) AS gain_high, trials.counted_bytes, trials.reason
FROM trials JOIN runs ON runs.id = trials.run_id LEFT JOIN trials AS parents ON parents.id = trials.parent_id
ORDER BY runs.id, trials.number;

CREATE VIEW scores AS
SELECT runs.name AS run, trials.number AS trial, replicates.purpose, replicates.seed, replicates.heldout,
       replicates.outcome, round(replicates.val_bpb, 5) AS val_bpb, replicates.score_kind,
       replicates.artifact_bytes + replicates.code_bytes AS counted_bytes, replicates.train_seconds,
       replicates.eval_seconds, replicates.message
FROM replicates JOIN trials ON trials.id = replicates.trial_id JOIN runs ON runs.id = trials.run_id
ORDER BY replicates.id;

CREATE VIEW heldout_b_reads AS
SELECT runs.name AS run, trials.number AS trial, replicates.seed, replicates.scored_at AS read_at
FROM replicates JOIN trials ON trials.id = replicates.trial_id JOIN runs ON runs.id = trials.run_id
WHERE replicates.heldout = 'B' AND replicates.state = 'scored' ORDER BY replicates.id;

CREATE VIEW board AS
SELECT runs.course, runs.track, runs.name AS run, trials.number AS trial, trials.hypothesis,
       trials.val_bpb, trials.counted_bytes, trials.commit_sha
FROM trials JOIN runs ON runs.id = trials.run_id
WHERE trials.verdict = 'keep' ORDER BY runs.course, runs.track, trials.val_bpb;
"""

_SECOND = """
ALTER TABLE replicates ADD COLUMN claims_sha256 TEXT REFERENCES blobs(sha256);
ALTER TABLE runs ADD COLUMN image_id TEXT;
ALTER TABLE runs ADD COLUMN final_leak_bound_bpb REAL;
ALTER TABLE runs ADD COLUMN final_trouble TEXT;
ALTER TABLE trials ADD COLUMN leak_bound_bpb REAL;
ALTER TABLE trials ADD COLUMN leak_mean_nats REAL;
ALTER TABLE trials ADD COLUMN leak_upper_nats REAL;
ALTER TABLE trials ADD COLUMN leak_replays INTEGER;
-- Replays of one artifact with the rest of the text withheld, or an exam of a script that scores itself.
-- stage: ordinary (a promising first look), keep, final (held-out B), asked (by agentgolf audit).
-- differences_json, exam_json: see agentgolf.domain, Replay and Exam.
CREATE TABLE audits (
    id INTEGER PRIMARY KEY,
    replicate_id INTEGER NOT NULL REFERENCES replicates(id),
    stage TEXT NOT NULL CHECK (stage IN ('ordinary', 'keep', 'final', 'asked')),
    outcome TEXT NOT NULL,
    message TEXT NOT NULL,
    secret TEXT NOT NULL,
    replays INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    text_bytes INTEGER NOT NULL,
    claimed_nats REAL NOT NULL,
    differences_json TEXT NOT NULL,
    exam_json TEXT,
    clock_seconds REAL NOT NULL,
    wall_seconds REAL NOT NULL,
    peak_memory_bytes INTEGER NOT NULL,
    log_sha256 TEXT REFERENCES blobs(sha256),
    audited_at TEXT NOT NULL
);
CREATE INDEX audits_by_replicate ON audits(replicate_id);
CREATE TRIGGER audits_stay BEFORE UPDATE ON audits
BEGIN SELECT RAISE(ABORT, 'audits are immutable'); END;
CREATE TRIGGER audits_are_kept BEFORE DELETE ON audits
BEGIN SELECT RAISE(ABORT, 'audits are never deleted'); END;
-- Readings of held-out B by a replay, which writes no replicate.
CREATE TABLE replayed_b (
    id INTEGER PRIMARY KEY,
    trial_id INTEGER NOT NULL REFERENCES trials(id),
    seed INTEGER NOT NULL,
    read_at TEXT NOT NULL
);
CREATE TRIGGER replayed_b_stays BEFORE UPDATE ON replayed_b
BEGIN SELECT RAISE(ABORT, 'what was read stays on record'); END;
CREATE TRIGGER replayed_b_is_kept BEFORE DELETE ON replayed_b
BEGIN SELECT RAISE(ABORT, 'what was read stays on record'); END;

DROP VIEW heldout_b_reads;
CREATE VIEW heldout_b_reads AS
SELECT runs.name AS run, trials.number AS trial, replicates.seed, replicates.scored_at AS read_at, 'run' AS read_by
FROM replicates JOIN trials ON trials.id = replicates.trial_id JOIN runs ON runs.id = trials.run_id
WHERE replicates.heldout = 'B' AND replicates.state = 'scored'
UNION ALL
SELECT runs.name, trials.number, replicates.seed, audits.audited_at, 'audit'
FROM audits JOIN replicates ON replicates.id = audits.replicate_id JOIN trials ON trials.id = replicates.trial_id
JOIN runs ON runs.id = trials.run_id WHERE replicates.heldout = 'B'
UNION ALL
SELECT runs.name, trials.number, replayed_b.seed, replayed_b.read_at, 'replay'
FROM replayed_b JOIN trials ON trials.id = replayed_b.trial_id JOIN runs ON runs.id = trials.run_id
ORDER BY read_at;

CREATE VIEW causality AS
SELECT runs.name AS run, trials.number AS trial, audits.stage, replicates.seed, replicates.heldout, audits.outcome,
       audits.replays, audits.clock_seconds, audits.message
FROM audits JOIN replicates ON replicates.id = audits.replicate_id JOIN trials ON trials.id = replicates.trial_id
JOIN runs ON runs.id = trials.run_id ORDER BY audits.id;
"""

_THIRD = """
ALTER TABLE runs ADD COLUMN max_cost_usd REAL;
ALTER TABLE runs ADD COLUMN max_model_tokens INTEGER;
-- Every request to a language model, written before it is sent, and its reply, written before it is used.
-- position: its place in the trial's conversation. cost_usd: empty where no price is known.
CREATE TABLE calls (
    id INTEGER PRIMARY KEY,
    run_id INTEGER NOT NULL REFERENCES runs(id),
    trial_number INTEGER NOT NULL,
    position INTEGER NOT NULL,
    model TEXT NOT NULL,
    request_sha256 TEXT NOT NULL,
    request_blob TEXT NOT NULL REFERENCES blobs(sha256),
    state TEXT NOT NULL CHECK (state IN ('sent', 'answered', 'failed')),
    reply_blob TEXT REFERENCES blobs(sha256),
    said TEXT,
    finish TEXT,
    input_tokens INTEGER,
    output_tokens INTEGER,
    cost_usd REAL,
    seconds REAL,
    sent_at TEXT NOT NULL,
    answered_at TEXT
);
CREATE INDEX calls_by_trial ON calls(run_id, trial_number, position);
CREATE TRIGGER answered_calls_stay BEFORE UPDATE ON calls WHEN old.state != 'sent'
BEGIN SELECT RAISE(ABORT, 'an answered call is immutable'); END;
CREATE TRIGGER calls_are_kept BEFORE DELETE ON calls
BEGIN SELECT RAISE(ABORT, 'calls are never deleted'); END;
-- What people say to a run, live or stopped. A trial that takes a suggestion up has its id in detail_json. Of vetoes
-- all count, of pins and unpins the last.
CREATE TABLE suggestions (
    id INTEGER PRIMARY KEY,
    run_id INTEGER NOT NULL REFERENCES runs(id),
    text TEXT NOT NULL,
    suggested_at TEXT NOT NULL
);
CREATE TRIGGER suggestions_stay BEFORE UPDATE ON suggestions
BEGIN SELECT RAISE(ABORT, 'what was said stays on record'); END;
CREATE TABLE steering (
    id INTEGER PRIMARY KEY,
    run_id INTEGER NOT NULL REFERENCES runs(id),
    kind TEXT NOT NULL CHECK (kind IN ('veto', 'pin', 'unpin')),
    trial_number INTEGER NOT NULL,
    said_at TEXT NOT NULL
);
CREATE TRIGGER steering_stays BEFORE UPDATE ON steering
BEGIN SELECT RAISE(ABORT, 'what was said stays on record'); END;
CREATE VIEW spending AS
SELECT runs.name AS run, calls.model, count(*) AS calls, sum(calls.state = 'failed') AS failed,
       sum(calls.input_tokens) AS input_tokens, sum(calls.output_tokens) AS output_tokens,
       round(sum(calls.cost_usd), 4) AS cost_usd, round(avg(calls.seconds), 1) AS mean_seconds
FROM calls JOIN runs ON runs.id = calls.run_id GROUP BY runs.id, calls.model ORDER BY runs.id;
"""

_FOURTH = """
ALTER TABLE calls ADD COLUMN tool_calls_json TEXT;
-- What the run had spent when the trial was decided.
ALTER TABLE trials ADD COLUMN spent_seconds REAL;
-- What a slow proposer was shown of the run when it began on a trial: a resume shows it the same again.
CREATE TABLE openings (
    run_id INTEGER NOT NULL REFERENCES runs(id),
    trial_number INTEGER NOT NULL,
    basis_json TEXT NOT NULL,
    opened_at TEXT NOT NULL,
    PRIMARY KEY (run_id, trial_number)
);
-- What tools with an effect said, such as smoke tests; asked_sha256 is of their arguments.
CREATE TABLE tool_uses (
    id INTEGER PRIMARY KEY,
    run_id INTEGER NOT NULL REFERENCES runs(id),
    trial_number INTEGER NOT NULL,
    position INTEGER NOT NULL,
    tool TEXT NOT NULL,
    asked_sha256 TEXT NOT NULL,
    said TEXT NOT NULL,
    seconds REAL NOT NULL,
    used_at TEXT NOT NULL
);
CREATE TRIGGER tool_uses_stay BEFORE UPDATE ON tool_uses
BEGIN SELECT RAISE(ABORT, 'what a tool said stays on record'); END;
-- A proposer's own line after the verdict, which its later proposals read.
CREATE TABLE lessons (
    id INTEGER PRIMARY KEY,
    trial_id INTEGER NOT NULL UNIQUE REFERENCES trials(id),
    text TEXT NOT NULL,
    written_at TEXT NOT NULL
);
CREATE TRIGGER lessons_stay BEFORE UPDATE ON lessons
BEGIN SELECT RAISE(ABORT, 'a lesson stays on record'); END;
-- Several scaffolds under one budget each; every arm of every repeat is a run of its own.
CREATE TABLE comparisons (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    seed INTEGER NOT NULL,
    repeats INTEGER NOT NULL,
    baseline_run_id INTEGER NOT NULL REFERENCES runs(id),
    state TEXT NOT NULL CHECK (state IN ('open', 'finished')),
    started_at TEXT NOT NULL,
    finished_at TEXT
);
CREATE TABLE comparison_runs (
    comparison_id INTEGER NOT NULL REFERENCES comparisons(id),
    arm TEXT NOT NULL,
    repeat INTEGER NOT NULL,
    run_id INTEGER NOT NULL UNIQUE REFERENCES runs(id),
    PRIMARY KEY (comparison_id, arm, repeat)
);
"""

_FIFTH = """
-- Of input_tokens, those that the server had read before, which cost less.
ALTER TABLE calls ADD COLUMN cached_tokens INTEGER;
DROP VIEW spending;
CREATE VIEW spending AS
SELECT runs.name AS run, calls.model, count(*) AS calls, sum(calls.state = 'failed') AS failed,
       sum(calls.input_tokens) AS input_tokens, sum(calls.cached_tokens) AS cached_tokens,
       sum(calls.output_tokens) AS output_tokens, round(sum(calls.cost_usd), 4) AS cost_usd,
       round(avg(calls.seconds), 1) AS mean_seconds
FROM calls JOIN runs ON runs.id = calls.run_id GROUP BY runs.id, calls.model ORDER BY runs.id;
"""

MIGRATIONS = (_FIRST, _SECOND, _THIRD, _FOURTH, _FIFTH)


def check_version(connection: sqlite3.Connection) -> int:
    """The ledger's version. Raises `LedgerError` when a newer agentgolf has written it."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise LedgerError(
            f"the ledger has version {version} and this agentgolf knows versions up to {len(MIGRATIONS)}; "
            "update it: pip install --upgrade agentgolf"
        )
    return version


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the ledger up to date; each migration is one transaction."""
    version = check_version(connection)
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")
