-- The archive: every conversation in plain SQL, for people. Derived from the log and never read by a running agent.
-- Written whenever a run is suspended, every 20 steps, and when it ends. Read it with any SQLite client while the
-- server runs (read-only, please: sqlite3 'file:holdfast.db?mode=ro'). All times are ms since the Unix epoch:
-- datetime(at / 1000, 'unixepoch') makes them readable. "path" says whose level of sub-agents a row belongs to: the ids
-- of the calls that lead there, joined by '/'; '' is the agent that the person talks to.

CREATE TABLE conversations (
    conversation TEXT PRIMARY KEY,      -- its id, as in the address of the page
    owner        TEXT NOT NULL,         -- who created it
    agent        TEXT NOT NULL,         -- name of the agent that answers
    title        TEXT NOT NULL,         -- as in the list, renamed ones included
    status       TEXT NOT NULL,         -- idle, running, waiting (for a person), suspended
    created_at   INTEGER NOT NULL,      -- when it was started
    updated_at   INTEGER NOT NULL,      -- when something last happened in it
    through      INTEGER NOT NULL       -- the last event (its seq) that these tables know of
) STRICT;

CREATE INDEX conversations_owner ON conversations (owner, updated_at);

-- A run: from an accepted prompt to its end, across suspensions and crashes.
CREATE TABLE runs (
    run             TEXT PRIMARY KEY,   -- its id
    conversation    TEXT NOT NULL,      -- conversations.conversation
    agent           TEXT NOT NULL,      -- name of the agent that works
    status          TEXT NOT NULL,      -- running, waiting, suspended, completed, failed, cancelled, moved (elsewhere)
    started_at      INTEGER NOT NULL,   -- when its prompt was taken up
    finished_at     INTEGER,            -- NULL while it has not ended
    step            INTEGER NOT NULL,   -- how many model calls so far
    tokens_input    INTEGER NOT NULL,   -- tokens sent to the model, in all steps together
    tokens_output   INTEGER NOT NULL,   -- tokens that it wrote
    tokens_cached   INTEGER NOT NULL,   -- how many of tokens_input the provider had cached
    estimated       INTEGER NOT NULL,   -- 1: the provider gave no figures, these are estimates
    error_kind      TEXT,               -- why it failed, for programs
    error_message   TEXT,               -- why it failed, for people
    result          TEXT                -- the final answer
) STRICT;

CREATE INDEX runs_conversation ON runs (conversation, started_at);
CREATE INDEX runs_newest ON runs (coalesce(finished_at, started_at), run);

-- What was said, in the order of seq: by people, by the agents, and by tools to the agents.
CREATE TABLE messages (
    id           INTEGER PRIMARY KEY,   -- of no meaning; the full-text index needs it
    conversation TEXT NOT NULL,         -- conversations.conversation
    seq          INTEGER NOT NULL,      -- place in the conversation; ascending, with gaps
    at           INTEGER NOT NULL,      -- when it was said
    run          TEXT,                  -- runs.run; NULL outside of any run
    path         TEXT NOT NULL,         -- '' or the calls that lead to the sub-agent
    role         TEXT NOT NULL,         -- user, assistant, tool
    author       TEXT,                  -- which person, for role user
    text         TEXT NOT NULL,         -- the words, or the result of a tool
    calls        TEXT CHECK (calls IS NULL OR json_valid(calls)),
                                        -- role assistant: the calls asked for, JSON [{"call","tool","arguments"}]
    call         TEXT,                  -- role tool: which call this answers (tool_calls.call)
    UNIQUE (conversation, seq)
) STRICT;

-- Tool calls, also those of sub-agents. A call is named by run, path and call together.
CREATE TABLE tool_calls (
    run          TEXT NOT NULL,         -- runs.run
    path         TEXT NOT NULL,         -- '' or the calls that lead to the sub-agent that asked
    call         TEXT NOT NULL,         -- the id that the model gave it
    conversation TEXT NOT NULL,         -- conversations.conversation
    tool         TEXT,                  -- its name
    arguments    TEXT,                  -- as the model wrote them: nearly always JSON, but test with json_valid()
    status       TEXT,                  -- asked, started, returned; or how it failed: error, timeout, cancelled,
                                        -- denied, in_doubt (may have happened), skipped, unknown_tool, bad_arguments
    result       TEXT,                  -- what the agent was given
    error        TEXT,                  -- what went wrong, a sentence
    settled      TEXT,                  -- what a call that had been given up turned out to have done
    started_at   INTEGER,               -- NULL: it never began
    finished_at  INTEGER,               -- NULL: no result yet
    ms           INTEGER,               -- how long it ran
    PRIMARY KEY (run, path, call)
) STRICT, WITHOUT ROWID;

CREATE INDEX tool_calls_conversation ON tool_calls (conversation);
CREATE INDEX tool_calls_tool ON tool_calls (tool, started_at);

-- Full-text search: SELECT … FROM messages WHERE id IN (SELECT rowid FROM messages_words WHERE text MATCH 'dinner')
CREATE VIRTUAL TABLE messages_words USING fts5 (
    text, content = 'messages', content_rowid = 'id', tokenize = 'unicode61 remove_diacritics 2'
);

CREATE TRIGGER messages_inserted AFTER INSERT ON messages BEGIN
    INSERT INTO messages_words (rowid, text) VALUES (new.id, new.text);
END;

CREATE TRIGGER messages_deleted AFTER DELETE ON messages BEGIN
    INSERT INTO messages_words (messages_words, rowid, text) VALUES ('delete', old.id, old.text);
END;

CREATE TRIGGER messages_updated AFTER UPDATE OF text ON messages WHEN old.text IS NOT new.text BEGIN
    INSERT INTO messages_words (messages_words, rowid, text) VALUES ('delete', old.id, old.text);
    INSERT INTO messages_words (rowid, text) VALUES (new.id, new.text);
END;

-- The conversation as one reads it. Order by conversation, seq.
CREATE VIEW transcripts AS
SELECT m.conversation, c.title, c.owner, m.seq, datetime(m.at / 1000, 'unixepoch') AS at_utc,
       m.run, m.path, m.role, coalesce(m.author, r.agent) AS speaker, m.text
FROM messages AS m
JOIN conversations AS c ON c.conversation = m.conversation
LEFT JOIN runs AS r ON r.run = m.run;
