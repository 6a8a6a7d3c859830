-- Events are the truth; everything else here is written in the same transaction as they are.

-- `row` is the order of appends over all tasks. A key clustered by (task, seq) is three times slower.
CREATE TABLE event (
    row   INTEGER PRIMARY KEY,
    task  TEXT    NOT NULL,
    seq   INTEGER NOT NULL,
    bytes BLOB    NOT NULL,          -- as written, never re-serialised
    hash  TEXT    NOT NULL,          -- sha256(previous hash, bytes)
    UNIQUE (task, seq)
) STRICT;

-- The head of each task's chain and the list's line, one row a task.
CREATE TABLE task (
    first_row  INTEGER PRIMARY KEY,  -- row of its first event: the order of lists
    id         TEXT    NOT NULL UNIQUE,
    seq        INTEGER NOT NULL,
    hash       TEXT    NOT NULL,
    state      TEXT    NOT NULL,
    open       INTEGER NOT NULL,     -- 1 until the state is terminal
    wake_at_us INTEGER,              -- microseconds since 1970
    summary    TEXT    NOT NULL
) STRICT;
CREATE INDEX task_open ON task (first_row) WHERE open = 1;
CREATE INDEX task_wake ON task (wake_at_us) WHERE wake_at_us IS NOT NULL;

CREATE TABLE idempotency (
    scope       TEXT NOT NULL,
    key         TEXT NOT NULL,
    body_digest TEXT NOT NULL,
    task        TEXT NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;

-- A row stays after its lease ended: the epoch of a task only ever grows.
CREATE TABLE lease (
    task          TEXT    PRIMARY KEY,
    epoch         INTEGER NOT NULL,
    owner         TEXT,              -- NULL: free
    expires_at_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Blobs too small to be worth a file of their own.
CREATE TABLE blob (
    digest TEXT PRIMARY KEY,
    bytes  BLOB NOT NULL
) STRICT;
