//! One call of a webhook tool: the request the platform builds and sends (section 6.2).

use std::sync::Once;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use data_encoding::HEXLOWER;
use futures_util::StreamExt;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use url::{Host, Url};

use super::shelves::text;
use super::variables::{REDACTED, Variables, is_secret, shown};
use crate::clock::{Stopwatch, deadline};

/// Bytes of an answer that are read; the rest is cut off.
const ANSWER_LIMIT: usize = 1 << 20;

/// The client for tool calls: no redirects, no proxy from the environment.
#[expect(clippy::disallowed_methods, reason = "the sandbox is not the house: it plays ElevenLabs")]
pub(super) fn client() -> Result<reqwest::Client, reqwest::Error> {
    static PROVIDER: Once = Once::new();
    // Somebody else may have installed one already; any will do.
    PROVIDER.call_once(|| drop(rustls::crypto::aws_lc_rs::default_provider().install_default()));
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build()
}

/// The platform calls https only; the stand-in also calls its neighbours on loopback.
pub(super) fn is_callable(url: &Url) -> bool {
    let loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && loopback)
}

/// Recognises a value again without showing it: the first 48 bits of its SHA-256.
pub(super) fn fingerprint(value: &str) -> String {
    let digest = HEXLOWER.encode(&Sha256::digest(value.as_bytes()));
    format!("sha256:{}", digest.get(..12).unwrap_or_default())
}

/// A request that is ready to be sent.
pub(super) struct Prepared {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<String>,
    timeout: Duration,
    /// `tool_details` of the transcript (section 12.2).
    pub details: Value,
    /// Header names with fingerprints of their values, for the control panel.
    pub fingerprints: Value,
}

/// A call that did not go out.
#[derive(Debug)]
pub(super) struct Unsent {
    /// The recorded `error_type`.
    pub error_type: &'static str,
    /// What the model may be told.
    pub message: String,
    /// Stopped by an allow-list rather than by an error.
    pub blocked: bool,
}

impl Unsent {
    pub fn wrong(message: impl Into<String>) -> Self {
        Self { error_type: "customer_config", message: message.into(), blocked: false }
    }
}

/// What came back.
pub(super) struct Reply {
    /// None when no answer arrived.
    pub status: Option<u16>,
    pub body: String,
    pub latency: Duration,
    /// Why there is no answer.
    pub failure: Option<(&'static str, &'static str)>,
}

/// What a request is built from.
pub(super) struct Inputs<'a> {
    pub tool: &'a Value,
    /// What the model filled in, by parameter name.
    pub args: &'a Map<String, Value>,
    pub variables: &'a Variables,
    /// Looks up workspace secrets by id.
    pub secret: &'a dyn Fn(&str) -> Option<String>,
}

impl Inputs<'_> {
    /// Builds the request.
    pub fn prepare(&self) -> Result<Prepared, Unsent> {
        let schema = &self.tool["api_schema"];
        let (url, path_params, query_params) = self.url(schema)?;
        // GET is the platform's default, surprising as it is.
        let method = schema["method"].as_str().unwrap_or("GET");
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| Unsent::wrong("unknown method"))?;
        let mut headers = self.headers(schema)?;

        let body_schema = Some(&schema["request_body_schema"]).filter(|schema| schema.is_object());
        let body = match body_schema.filter(|_| method != Method::GET) {
            Some(schema) => Some(self.object(schema, self.args)?),
            None => None,
        };
        let content_type = schema["content_type"].as_str().unwrap_or("application/json").to_owned();
        let body = body.map(|object| encode(&content_type, &object));
        if body.is_some() {
            let value = HeaderValue::from_str(&content_type).map_err(|_| Unsent::wrong("bad content type"))?;
            headers.sent.entry("content-type").or_insert(value);
        }
        let details = json!({
            "type": "webhook", "method": method.as_str(), "url": url.as_str(), "headers": headers.kept,
            "path_params": path_params, "query_params": query_params, "body": body,
        });
        let seconds = self.tool["response_timeout_secs"].as_u64().unwrap_or(20).clamp(5, 300);
        Ok(Prepared {
            method,
            url,
            headers: headers.sent,
            body,
            timeout: Duration::from_secs(seconds),
            details,
            fingerprints: Value::Object(headers.fingerprints),
        })
    }

    fn url(&self, schema: &Value) -> Result<(Url, Value, Value), Unsent> {
        let mut template = text(schema, "url").to_owned();
        let mut path_params = Map::new();
        for (name, literal) in schema["path_params_schema"].as_object().into_iter().flatten() {
            let value = self.literal(literal, name, self.args)?;
            let value = value.ok_or_else(|| Unsent::wrong(format!("missing path parameter {name}")))?;
            template = template.replace(&format!("{{{name}}}"), &encode_segment(&shown(&value)));
            path_params.insert(name.clone(), value);
        }
        if template.contains(['{', '}']) {
            return Err(Unsent::wrong("the URL has parameters without values"));
        }
        let mut url = Url::parse(&template).map_err(|_| Unsent::wrong("the URL is not valid"))?;
        if !is_callable(&url) {
            return Err(Unsent::wrong("only https URLs are called"));
        }
        let query = &schema["query_params_schema"];
        let query_params = if query.is_object() { self.object(query, self.args)? } else { Map::new() };
        if !query_params.is_empty() {
            let pairs = query_params.iter().map(|(name, value)| (name, shown(value)));
            url.query_pairs_mut().extend_pairs(pairs);
        }
        Ok((url, Value::Object(path_params), Value::Object(query_params)))
    }

    fn headers(&self, schema: &Value) -> Result<Headers, Unsent> {
        let mut headers = Headers::default();
        for (name, source) in schema["request_headers"].as_object().into_iter().flatten() {
            let hidden = source.get("secret_id").is_some() || source["variable_name"].as_str().is_some_and(is_secret);
            let value = match (source, source["secret_id"].as_str(), source["variable_name"].as_str()) {
                (Value::String(literal), ..) => literal.clone(),
                (_, Some(id), _) => (self.secret)(id).ok_or_else(|| Unsent::wrong("unknown secret in a header"))?,
                (_, _, Some(variable)) => shown(self.variable(variable)?),
                _ => return Err(Unsent::wrong(format!("header {name} has no value"))),
            };
            headers.add(name, &value, hidden)?;
        }
        Ok(headers)
    }

    fn variable(&self, name: &str) -> Result<&Value, Unsent> {
        self.variables.get(name).ok_or_else(|| Unsent::wrong(format!("dynamic variable {name} has no value")))
    }

    /// An object of literals, as bodies and query strings are described.
    fn object(&self, schema: &Value, args: &Map<String, Value>) -> Result<Map<String, Value>, Unsent> {
        let mut object = Map::new();
        for (name, literal) in schema["properties"].as_object().into_iter().flatten() {
            if let Some(value) = self.literal(literal, name, args)? {
                object.insert(name.clone(), value);
            }
        }
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        match required.into_iter().find(|name| !object.contains_key(*name)) {
            Some(name) => Err(Unsent::wrong(format!("missing parameter {name}"))),
            None => Ok(object),
        }
    }

    /// One value from exactly one source: variable, constant, or the model.
    fn literal(&self, schema: &Value, name: &str, args: &Map<String, Value>) -> Result<Option<Value>, Unsent> {
        let on = |flag: &str| schema[flag].as_bool().unwrap_or(false);
        if on("is_omitted") || on("is_system_provided") {
            return Ok(None);
        }
        // The old schema writes an empty text for "none" in both places.
        if let Some(variable) = schema["dynamic_variable"].as_str().filter(|name| !name.is_empty()) {
            return self.variable(variable).map(|value| Some(value.clone()));
        }
        let constant = &schema["constant_value"];
        if !constant.is_null() && constant.as_str() != Some("") {
            return Ok(Some(constant.clone()));
        }
        if schema["type"] == "object" {
            let none = Map::new();
            let given = args.get(name).and_then(Value::as_object);
            let object = self.object(schema, given.unwrap_or(&none));
            return match object {
                // An optional object that the model left out is not an error.
                Err(_) if given.is_none() => Ok(None),
                Ok(object) if object.is_empty() && given.is_none() => Ok(None),
                other => other.map(|object| Some(Value::Object(object))),
            };
        }
        let Some(value) = args.get(name) else { return Ok(None) };
        self.check_allowed(schema, name, value)?;
        Ok(Some(value.clone()))
    }

    /// `allowed_values`: the model's value must be in a list it was never shown.
    fn check_allowed(&self, schema: &Value, name: &str, value: &Value) -> Result<(), Unsent> {
        let Some(variable) = schema["allowed_values"]["dynamic_variable"].as_str() else { return Ok(()) };
        let allowed = match self.variable(variable)? {
            Value::Array(items) => items.iter().map(shown).collect(),
            other => shown(other).split(',').map(|item| item.trim().to_owned()).collect::<Vec<_>>(),
        };
        if allowed.contains(&shown(value)) {
            return Ok(());
        }
        let message = format!("the value of {name} is not allowed");
        Err(Unsent { error_type: "customer_config", message, blocked: true })
    }
}

/// Headers as sent, as kept in the transcript, and as fingerprints.
#[derive(Default)]
struct Headers {
    sent: HeaderMap,
    kept: Map<String, Value>,
    fingerprints: Map<String, Value>,
}

impl Headers {
    fn add(&mut self, name: &str, value: &str, hidden: bool) -> Result<(), Unsent> {
        let bad = || Unsent::wrong(format!("header {name} cannot be sent"));
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        self.sent.insert(key, HeaderValue::from_str(value).map_err(|_| bad())?);
        self.kept.insert(name.to_owned(), Value::from(if hidden { REDACTED } else { value }));
        self.fingerprints.insert(name.to_owned(), Value::from(fingerprint(value)));
        Ok(())
    }
}

fn encode(content_type: &str, object: &Map<String, Value>) -> String {
    if content_type == "application/x-www-form-urlencoded" {
        let pairs = object.iter().map(|(name, value)| (name, shown(value)));
        return url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    }
    Value::Object(object.clone()).to_string()
}

/// Percent-encodes all but RFC 3986's unreserved characters (section 2.3).
fn encode_segment(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// Sends the request and reads the answer within the tool's time limit.
pub(super) async fn send(client: &reqwest::Client, prepared: Prepared) -> Reply {
    let watch = Stopwatch::start();
    let mut request = client.request(prepared.method, prepared.url).headers(prepared.headers);
    if let Some(body) = prepared.body {
        request = request.body(body);
    }
    let work = async {
        let response = request.send().await?;
        let status = response.status().as_u16();
        let mut bytes = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk?);
            if bytes.len() >= ANSWER_LIMIT {
                bytes.truncate(ANSWER_LIMIT);
                break;
            }
        }
        Ok::<_, reqwest::Error>((status, String::from_utf8_lossy(&bytes).into_owned()))
    };
    let outcome = deadline(prepared.timeout, work).await;
    let latency = watch.elapsed();
    let failed = |kind, message| Reply { status: None, body: String::new(), latency, failure: Some((kind, message)) };
    match outcome {
        Ok(Ok((status, body))) => Reply { status: Some(status), body, latency, failure: None },
        Ok(Err(_)) => failed("external_server", "the endpoint could not be reached"),
        Err(_) => failed("client_timeout", "the endpoint did not answer in time"),
    }
}
