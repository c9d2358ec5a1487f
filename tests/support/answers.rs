//! Answers of the house, recorded with the kinds of secrets that they may carry: the list of exits (AP-12).

use reqwest::header::{HeaderMap, LOCATION, SET_COOKIE};
use serde_json::Value;
use url::Url;
use valetkey::sandbox::person::Seen;

use super::{Kind, Known};

impl Known {
    /// An answer of the house, with its headers.
    pub fn record_answer(&mut self, method: &str, path: &str, headers: &HeaderMap, text: &str) {
        let allowed = exits(method, path);
        if !allowed.is_empty() {
            self.learn_from_answer(text);
        }
        for cookie in headers.get_all(SET_COOKIE) {
            let value = cookie.to_str().unwrap_or_default().split_once('=').map_or("", |(_, rest)| rest);
            self.learn(Kind::Session, value.split(';').next().unwrap_or_default());
        }
        let target = headers.get(LOCATION).and_then(|value| value.to_str().ok()?.parse::<Url>().ok());
        for (_, code) in target.iter().flat_map(Url::query_pairs).filter(|(name, _)| name == "completion_code") {
            self.learn(Kind::CompletionCode, &code);
        }
        let what = format!("answer to {method} {}", path.split('?').next().unwrap_or_default());
        for (name, value) in headers {
            let line = [name.as_str().as_bytes(), b": ", value.as_bytes()].concat();
            let allowed: &[Kind] = match *name {
                SET_COOKIE => &[Kind::Session],
                LOCATION if allowed.contains(&Kind::CompletionCode) => &[Kind::CompletionCode],
                _ => &[],
            };
            self.record(&what, allowed, line);
        }
        self.record(&what, allowed, text.as_bytes().to_vec());
    }

    /// What people saw of the house at `base`.
    pub fn record_pages(&mut self, base: &str, seen: &Seen) {
        for (method, page) in seen.lock().expect("pages").iter().filter(|(_, page)| page.url.as_str().starts_with(base))
        {
            self.record_answer(method.as_str(), page.url.path(), &page.headers, &page.body);
        }
    }

    /// What an exit lets out is a secret from now on.
    pub fn learn_from_answer(&mut self, text: &str) {
        let Ok(body) = serde_json::from_str::<Value>(text) else { return };
        let mut learn = |kind, value: &Value| {
            if let Some(text) = value.as_str() {
                self.learn(kind, text);
            }
        };
        learn(Kind::AccessToken, &body["access_token"]);
        learn(Kind::ToolHeader, &body["tool_header_value"]);
        learn(Kind::PlatformKey, &body["secret"]);
        learn(Kind::Ticket, &body["initiation"]["dynamic_variables"]["secret__valetkey_ticket"]);
        for url in [&body["url"], &body["connect_url"]] {
            let Some(token) = url.as_str().and_then(|url| url.rsplit('/').next()) else { continue };
            // A platform's own URL is no link of ours.
            if token.starts_with("vk") {
                learn(Kind::Link, &token.into());
            }
        }
        let Some(url) = body["signed_url"].as_str().and_then(|url| url.parse::<Url>().ok()) else { return };
        for (name, value) in url.query_pairs() {
            match name.as_ref() {
                "t" => learn(Kind::RelayLink, &value.as_ref().into()),
                "conversation_signature" => learn(Kind::SignedUrl, &value.as_ref().into()),
                _ => {}
            }
        }
    }
}

/// The exits of the house: which answers may carry which secrets. Everything else may carry none (AP-12).
fn exits(method: &str, path: &str) -> &'static [Kind] {
    let path = path.split('?').next().unwrap_or_default();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match (method, parts.as_slice()) {
        ("POST", ["v1", "connections", _, "token"]) | ("POST", ["tokens", "refresh"]) => &[Kind::AccessToken],
        ("POST", ["v1", "conversations"]) => {
            &[Kind::AccessToken, Kind::Ticket, Kind::RelayLink, Kind::SignedUrl, Kind::Link]
        }
        ("POST", ["v1", "api-keys"]) => &[Kind::PlatformKey],
        ("PUT", ["v1", "workspaces", _]) => &[Kind::ToolHeader],
        ("POST", ["v1", "connect-sessions" | "portal-sessions"]) | ("GET", ["portal" | "connect", _]) => &[Kind::Link],
        // The page behind a link sends its form to where it was opened.
        ("GET" | "POST", ["setup", _]) => &[Kind::Link],
        // Through the browser, back to the platform: in the address, or in the message to the window that waits.
        ("GET", ["oauth", _, "callback", _] | ["connections", "result", _]) => &[Kind::CompletionCode],
        _ => &[],
    }
}
