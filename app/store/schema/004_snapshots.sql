-- What long logs say, folded, so that a conversation of a million events is opened in less than a second: a cache. Delete
-- from it whatever you like, at any time: the log is folded whole then. Written and read by app/store/log_sqlite.py alone.

CREATE TABLE log_snapshots (
    conversation TEXT PRIMARY KEY,
    log          TEXT NOT NULL,       -- the incarnation of the log that was folded; one of another is ignored
    through      INTEGER NOT NULL,    -- the last seq that is in it
    stamp        TEXT NOT NULL,       -- digest of the code that folded; what other code made is ignored
    state        BLOB NOT NULL        -- of no meaning to anybody but that code
) STRICT;
