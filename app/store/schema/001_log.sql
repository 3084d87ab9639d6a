-- The log: what the process needs to go on after a crash. Written and read by app/store/log_sqlite.py alone; people who
-- write SQL want the tables of the archive (002_archive.sql). All times are ms since the Unix epoch.

CREATE TABLE holdfast (
    name  TEXT PRIMARY KEY,    -- 'boot': how often this database was opened; 'probe': there for an instant
    value ANY
) STRICT, WITHOUT ROWID;

CREATE TABLE log_conversations (
    conversation   TEXT PRIMARY KEY,
    log            TEXT NOT NULL,       -- the incarnation of the log, half of every cursor
    epoch          INTEGER NOT NULL,    -- the newest owner; an append of an older one is refused
    lasting        INTEGER NOT NULL,    -- through of the last row in "log"; a missing tail shows against it
    deleted_at     INTEGER,             -- hidden since; purged some time later
    creation_owner TEXT,                -- with creation: the idempotency key of the creation
    creation       TEXT,
    creation_run   TEXT,                -- the run that the creation started: its first answer
    agent          TEXT NOT NULL,       -- from here on: the list item (event_log.Item), replaced as a whole
    title          TEXT NOT NULL,
    owner          TEXT NOT NULL,
    status         TEXT NOT NULL,
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL,
    run            TEXT,
    run_status     TEXT,
    started_at     INTEGER,
    step           INTEGER NOT NULL,
    waiting_for    TEXT,
    busy           INTEGER NOT NULL,
    wake_at        INTEGER
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX log_conversations_creation ON log_conversations (creation_owner, creation)
    WHERE creation IS NOT NULL;
CREATE INDEX log_conversations_newest ON log_conversations (owner, created_at, conversation);
CREATE INDEX log_conversations_busy ON log_conversations (created_at) WHERE busy;
CREATE INDEX log_conversations_wake ON log_conversations (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX log_conversations_deleted ON log_conversations (deleted_at) WHERE deleted_at IS NOT NULL;

-- Lasting events, one row for one append. The key is a compare-and-set: only one row can follow "after".
CREATE TABLE log (
    conversation TEXT NOT NULL,
    after        INTEGER NOT NULL,    -- the seq that this row follows
    through      INTEGER NOT NULL,    -- its last seq (numbers of superseded pieces included)
    prev         INTEGER NOT NULL,    -- through of the lasting row before it, 0 for the first: the chain
    epoch        INTEGER NOT NULL,    -- the owner that wrote it
    seqs         TEXT,                -- NULL: after+1 … through without a gap; otherwise the seqs, joined by commas
    events       TEXT NOT NULL,       -- the JSON of the events, joined by line feeds
    PRIMARY KEY (conversation, after)
) STRICT, WITHOUT ROWID;

-- Pieces, until what supersedes them is committed. Append-only, no second index: a map in memory finds them, which one
-- scan rebuilds at start. An id is never used twice while a process lives.
CREATE TABLE log_pieces (
    id           INTEGER PRIMARY KEY,
    conversation TEXT NOT NULL,
    after        INTEGER NOT NULL,
    through      INTEGER NOT NULL,
    owner        TEXT NOT NULL,       -- the attempt or call whose end supersedes them
    epoch        INTEGER NOT NULL,
    seqs         TEXT,
    events       TEXT NOT NULL
) STRICT;

CREATE TABLE log_runs (
    run          TEXT PRIMARY KEY,
    conversation TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX log_runs_conversation ON log_runs (conversation);

-- Texts too large for an event, kept whole.
CREATE TABLE log_kept (
    conversation TEXT NOT NULL,
    ref          TEXT NOT NULL,
    text         TEXT NOT NULL,
    PRIMARY KEY (conversation, ref)
) STRICT;
