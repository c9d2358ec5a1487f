-- An ElevenLabs workspace with its API keys.
CREATE TABLE workspaces (
    tenant_id TEXT NOT NULL CONSTRAINT workspaces_tenant_fkey REFERENCES tenants (id),
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    region TEXT NOT NULL,
    user_id TEXT,
    primary_key BLOB,
    secondary_key BLOB,
    active_slot TEXT NOT NULL CONSTRAINT workspaces_active_slot_check CHECK (active_slot IN ('primary', 'secondary')),
    tool_header BLOB NOT NULL,
    tool_header_hash TEXT NOT NULL,
    previous_tool_header_hash TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    CONSTRAINT workspaces_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT workspaces_name_key UNIQUE (tenant_id, name),
    CONSTRAINT workspaces_user_fkey FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id)
) STRICT;

-- An operator's workspace lets one tenant use one agent.
CREATE TABLE workspace_shares (
    owner_tenant_id TEXT NOT NULL,
    workspace_id TEXT NOT NULL,
    tenant_id TEXT NOT NULL CONSTRAINT workspace_shares_tenant_fkey REFERENCES tenants (id),
    agent_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    CONSTRAINT workspace_shares_pkey PRIMARY KEY (tenant_id, workspace_id, agent_id),
    CONSTRAINT workspace_shares_workspace_fkey FOREIGN KEY (owner_tenant_id, workspace_id) REFERENCES workspaces (tenant_id, id)
) STRICT;

-- An ElevenLabs agent with its needs.
CREATE TABLE agents (
    tenant_id TEXT NOT NULL CONSTRAINT agents_tenant_fkey REFERENCES tenants (id),
    id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    workspace_tenant_id TEXT NOT NULL,
    workspace_id TEXT NOT NULL,
    access TEXT NOT NULL CONSTRAINT agents_access_check CHECK (access IN ('all_users', 'granted')),
    needs TEXT NOT NULL,
    client_variables TEXT NOT NULL,
    broker TEXT NOT NULL,
    max_duration INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    CONSTRAINT agents_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT agents_agent_id_key UNIQUE (tenant_id, agent_id),
    CONSTRAINT agents_owner_key UNIQUE (workspace_id, agent_id),
    CONSTRAINT agents_workspace_fkey FOREIGN KEY (workspace_tenant_id, workspace_id) REFERENCES workspaces (tenant_id, id)
) STRICT;

-- Permission of a user for an agent or a voice.
CREATE TABLE grants (
    tenant_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    resource_type TEXT NOT NULL CONSTRAINT grants_resource_type_check CHECK (resource_type IN ('agent', 'voice')),
    resource_id TEXT NOT NULL,
    permission_level TEXT NOT NULL CONSTRAINT grants_permission_level_check CHECK (permission_level IN ('viewer', 'editor', 'admin')),
    created_at INTEGER NOT NULL,
    CONSTRAINT grants_pkey PRIMARY KEY (tenant_id, user_id, resource_type, resource_id),
    CONSTRAINT grants_user_fkey FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id)
) STRICT;

-- One run of an agent for one user, with the ticket bound to it.
CREATE TABLE conversations (
    tenant_id TEXT NOT NULL CONSTRAINT conversations_tenant_fkey REFERENCES tenants (id),
    id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    workspace_tenant_id TEXT NOT NULL,
    workspace_id TEXT NOT NULL,
    api_key_id TEXT,
    channel TEXT NOT NULL,
    status TEXT NOT NULL CONSTRAINT conversations_status_check CHECK (status IN ('starting', 'started', 'ended', 'failed')),
    upstream_id TEXT,
    ticket_hash TEXT NOT NULL CONSTRAINT conversations_ticket_hash_key UNIQUE,
    ticket_expires_at INTEGER NOT NULL,
    relay_hash TEXT CONSTRAINT conversations_relay_hash_key UNIQUE,
    relay_expires_at INTEGER,
    relay_used_at INTEGER,
    start_data BLOB,
    refresh_tool TEXT NOT NULL,
    broker TEXT NOT NULL,
    client_variables TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER,
    end_reason TEXT,
    CONSTRAINT conversations_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT conversations_user_fkey FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id),
    CONSTRAINT conversations_workspace_fkey FOREIGN KEY (workspace_tenant_id, workspace_id) REFERENCES workspaces (tenant_id, id),
    CONSTRAINT conversations_api_key_fkey FOREIGN KEY (tenant_id, api_key_id) REFERENCES api_keys (tenant_id, id)
) STRICT;
CREATE INDEX conversations_user_idx ON conversations (tenant_id, user_id, id);
CREATE INDEX conversations_ticket_expires_at_idx ON conversations (ticket_expires_at) WHERE ended_at IS NULL;

-- The connections that a conversation may use.
CREATE TABLE conversation_connections (
    tenant_id TEXT NOT NULL,
    conversation_id TEXT NOT NULL,
    provider TEXT NOT NULL,
    connection_id TEXT NOT NULL,
    credential_id TEXT NOT NULL,
    hand_over TEXT NOT NULL CONSTRAINT conversation_connections_hand_over_check CHECK (hand_over IN ('inject', 'broker')),
    is_primary INTEGER NOT NULL,
    handed_generation INTEGER NOT NULL,
    CONSTRAINT conversation_connections_pkey PRIMARY KEY (tenant_id, conversation_id, connection_id),
    CONSTRAINT conversation_connections_conversation_fkey FOREIGN KEY (tenant_id, conversation_id) REFERENCES conversations (tenant_id, id),
    CONSTRAINT conversation_connections_connection_fkey FOREIGN KEY (tenant_id, connection_id) REFERENCES connections (tenant_id, id),
    CONSTRAINT conversation_connections_credential_fkey FOREIGN KEY (tenant_id, credential_id) REFERENCES credentials (tenant_id, id)
) STRICT;
CREATE INDEX conversation_connections_connection_idx ON conversation_connections (tenant_id, connection_id);

-- How often a ticket was used in its current hour.
CREATE TABLE ticket_uses (
    tenant_id TEXT NOT NULL,
    conversation_id TEXT NOT NULL,
    kind TEXT NOT NULL CONSTRAINT ticket_uses_kind_check CHECK (kind IN ('refresh', 'broker', 'refused')),
    window_started_at INTEGER NOT NULL,
    uses INTEGER NOT NULL,
    CONSTRAINT ticket_uses_pkey PRIMARY KEY (tenant_id, conversation_id, kind),
    CONSTRAINT ticket_uses_conversation_fkey FOREIGN KEY (tenant_id, conversation_id) REFERENCES conversations (tenant_id, id)
) STRICT;
