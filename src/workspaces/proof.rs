//! The proof that an agent's refresh tools keep a token from its model (AG-07).
//!
//! A token goes into the answer of the refresh tool only while every tool that the agent can reach and that calls our
//! refresh URL assigns exactly that path to a `secret__` name, sanitized, and hides it from the response. What cannot be
//! read is not proven.

use std::collections::BTreeSet;

use super::{PROOF_LIFE, Workspaces, WorkspacesError};
use crate::elevenlabs::{Access, Agent, FilterMode, Tool};

/// The paths of the refresh tool's answer that hold a secret.
pub const SECRET_PATHS: [&str; 2] = ["access_token", "authorization"];
/// Agents that may be reached by transfers; more than that is not proven.
const MOST_AGENTS: usize = 20;
/// Tools that are read for one proof; more than that is not proven.
const MOST_TOOLS: usize = 200;

impl Workspaces {
    /// Which of `SECRET_PATHS` may be in the refresh tool's answer to this agent; empty means status only. Known for
    /// at most a minute.
    pub async fn proven_paths(&self, owner_tenant: &str, workspace: &str, agent_id: &str) -> BTreeSet<String> {
        let name = (workspace.to_owned(), agent_id.to_owned());
        let now = self.around.now();
        // By the house's clock; the cache's own clock only bounds how much is kept.
        if let Some((read_at, paths)) = self.proofs.get(&name).await
            && now < read_at.after(PROOF_LIFE)
        {
            return paths;
        }
        match self.prove(owner_tenant, workspace, agent_id).await {
            Ok(paths) => {
                self.proofs.insert(name, (now, paths.clone())).await;
                paths
            }
            Err(error) => {
                // Not cached: the next call reads again.
                tracing::warn!(error = %error, "an agent's tools could not be read, so no token goes into its refresh tool");
                BTreeSet::new()
            }
        }
    }

    async fn prove(
        &self,
        owner_tenant: &str,
        workspace: &str,
        agent_id: &str,
    ) -> Result<BTreeSet<String>, WorkspacesError> {
        let access = self.access(owner_tenant, workspace).await?;
        let access = Access { region: &access.region, api_key: &access.api_key };
        let tools = self.reachable_tools(access, agent_id).await?;
        Ok(common_paths(&tools, &self.page("tokens/refresh")))
    }

    async fn reachable_tools(&self, access: Access<'_>, agent_id: &str) -> Result<Vec<Tool>, WorkspacesError> {
        let mut waiting = vec![agent_id.to_owned()];
        let mut seen = BTreeSet::new();
        let mut tool_ids = BTreeSet::new();
        let mut tools = Vec::new();
        while let Some(id) = waiting.pop() {
            if !seen.insert(id.clone()) {
                continue;
            }
            if seen.len() > MOST_AGENTS {
                return Err(WorkspacesError::NotFound("end of this agent's transfers"));
            }
            let agent: Agent = self.elevenlabs.agent(access, &id).await?;
            tool_ids.extend(agent.tool_ids);
            tools.extend(agent.inline_tools);
            waiting.extend(agent.transfer_targets);
        }
        if tool_ids.len() > MOST_TOOLS {
            return Err(WorkspacesError::NotFound("end of this agent's tools"));
        }
        for id in &tool_ids {
            tools.push(self.elevenlabs.tool(access, id).await?);
        }
        Ok(tools)
    }
}

/// The secret paths that every tool which calls `url` keeps from the model. No such tool means no path.
fn common_paths(tools: &[Tool], url: &str) -> BTreeSet<String> {
    let mut calling = tools.iter().filter(|tool| tool.url.as_deref().is_some_and(|called| calls(called, url)));
    let Some(first) = calling.next() else { return BTreeSet::new() };
    calling.fold(kept_paths(first), |common, tool| common.intersection(&kept_paths(tool)).cloned().collect())
}

/// Anything that may lead to our URL counts: with a query, another case of the host, a template in it.
fn calls(called: &str, url: &str) -> bool {
    let trimmed = called.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    trimmed.eq_ignore_ascii_case(url)
        || trimmed.to_ascii_lowercase().ends_with("/tokens/refresh")
        || trimmed.contains("{{")
        || trimmed.contains('{')
}

fn kept_paths(tool: &Tool) -> BTreeSet<String> {
    SECRET_PATHS.iter().filter(|path| is_kept(tool, path)).map(|path| (*path).to_owned()).collect()
}

fn is_kept(tool: &Tool, path: &str) -> bool {
    let mut assigning = tool.assignments.iter().filter(|one| one.value_path == path).peekable();
    let hidden = match &tool.response_filter {
        FilterMode::HideAll => true,
        FilterMode::Allow(shown) => {
            !shown.iter().any(|one| one == path || one.starts_with(&format!("{path}.")) || one == "*")
        }
        FilterMode::All | FilterMode::Other => false,
    };
    hidden
        && assigning.peek().is_some()
        && assigning.all(|one| one.sanitize && one.dynamic_variable.starts_with("secret__"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const URL: &str = "https://vault.example/tokens/refresh";

    fn tool(sanitize: bool, variable: &str, filter: serde_json::Value) -> Tool {
        Tool::read(&json!({"id": "tool_1", "tool_config": {"type": "webhook", "name": "refresh",
            "assignments": [{"source": "response", "dynamic_variable": variable, "value_path": "authorization", "sanitize": sanitize}],
            "api_schema": {"url": URL, "method": "POST", "response_filter": filter}}}))
    }

    fn hide_all() -> serde_json::Value {
        json!({"mode": "hide_all"})
    }

    #[test]
    fn a_sanitized_and_hidden_assignment_to_a_secret_name_is_proven() {
        let good = tool(true, "secret__user_google_authorization", hide_all());
        assert_eq!(common_paths(&[good], URL), BTreeSet::from(["authorization".to_owned()]));
        let allow = tool(true, "secret__x", json!({"mode": "allow", "filters": ["status"]}));
        assert_eq!(common_paths(&[allow], URL), BTreeSet::from(["authorization".to_owned()]));
    }

    #[test]
    fn one_leaky_tool_among_several_takes_the_proof_away() {
        let good = || tool(true, "secret__x", hide_all());
        for leaky in [
            tool(false, "secret__x", hide_all()),
            tool(true, "user_token", hide_all()),
            tool(true, "secret__x", json!({"mode": "all"})),
            tool(true, "secret__x", json!({"mode": "allow", "filters": ["status", "authorization"]})),
        ] {
            assert!(common_paths(&[good(), leaky, good()], URL).is_empty());
        }
    }

    #[test]
    fn an_agent_without_a_refresh_tool_is_not_proven() {
        assert!(common_paths(&[], URL).is_empty());
    }
}
