-- The book. Entries hold ids only and carry a MAC; a block seals them into their tenant's chain.
CREATE TABLE audit_entries (
    tenant_id TEXT NOT NULL CONSTRAINT audit_entries_tenant_fkey REFERENCES tenants (id),
    id TEXT NOT NULL,
    at INTEGER NOT NULL,
    actor_kind TEXT NOT NULL,
    actor_id TEXT NOT NULL,
    action TEXT NOT NULL,
    object_kind TEXT NOT NULL,
    object_id TEXT NOT NULL,
    user_id TEXT,
    conversation_id TEXT,
    result TEXT NOT NULL CONSTRAINT audit_entries_result_check CHECK (result IN ('allowed', 'denied', 'failed')),
    reason TEXT,
    request_id TEXT NOT NULL,
    peer TEXT,
    mac BLOB NOT NULL,
    block_seq INTEGER,
    CONSTRAINT audit_entries_pkey PRIMARY KEY (tenant_id, id)
) STRICT;
CREATE INDEX audit_entries_user_idx ON audit_entries (tenant_id, user_id, id);
CREATE INDEX audit_entries_open_idx ON audit_entries (tenant_id, id) WHERE block_seq IS NULL;

-- What the outside is told about, once each; `events` delivers it.
CREATE TABLE outbox (
    tenant_id TEXT NOT NULL CONSTRAINT outbox_tenant_fkey REFERENCES tenants (id),
    id TEXT NOT NULL,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    object_id TEXT NOT NULL,
    user_id TEXT,
    old_state TEXT,
    new_state TEXT,
    reason TEXT,
    CONSTRAINT outbox_pkey PRIMARY KEY (tenant_id, id)
) STRICT;
