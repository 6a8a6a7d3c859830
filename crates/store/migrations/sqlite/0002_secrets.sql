-- Credentials, sealed. What is here without the key says only which there are and where they may go.
CREATE TABLE secret (
    repo        TEXT    NOT NULL,    -- '' for the whole server
    environment TEXT    NOT NULL,    -- '' for the whole repository
    name        TEXT    NOT NULL,
    hosts       TEXT    NOT NULL,    -- JSON array, sorted
    added_as    TEXT    NOT NULL,    -- bearer, basic:USER or header:NAME
    revision    INTEGER NOT NULL,    -- grows by one with every write of this row
    key_id      TEXT    NOT NULL,
    nonce       BLOB    NOT NULL,
    sealed      BLOB    NOT NULL,    -- AES-256-GCM; every column above is authenticated with it
    created_us  INTEGER NOT NULL,
    updated_us  INTEGER NOT NULL,
    PRIMARY KEY (repo, environment, name)
) STRICT, WITHOUT ROWID;

-- Who changed which, when; written in the transaction of the change, never a value.
CREATE TABLE secret_audit (
    row         INTEGER PRIMARY KEY,
    at_us       INTEGER NOT NULL,
    actor       TEXT    NOT NULL,
    action      TEXT    NOT NULL,    -- set, removed or resealed
    repo        TEXT    NOT NULL,
    environment TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    hosts       TEXT    NOT NULL,
    added_as    TEXT    NOT NULL
) STRICT;
CREATE TRIGGER secret_audit_is_never_changed BEFORE UPDATE ON secret_audit
BEGIN SELECT raise(ABORT, 'the audit of secrets is append-only'); END;
CREATE TRIGGER secret_audit_is_never_removed BEFORE DELETE ON secret_audit
BEGIN SELECT raise(ABORT, 'the audit of secrets is append-only'); END;
