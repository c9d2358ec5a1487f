//! What the OpenAPI document says of every call alike: how to prove who asks, how to repeat a write, what a problem looks
//! like. The calls themselves say the rest.

use utoipa::OpenApi;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{HttpMethod, Operation, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Required, Response, ResponseBuilder};

use crate::http::ProblemBody;

/// What the document says besides its paths.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Valetkey",
        description = "Keeps each end user's credentials sealed and fresh, and lends them to an ElevenLabs voice agent for one conversation at a time.\n\nTimes are RFC 3339 in UTC. Lists are `{data, next_cursor}`. Bodies refuse unknown fields. What belongs to another tenant is 404, like what is not there. Errors are application/problem+json.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(ProblemBody)),
    security(("platform_key" = [])),
    tags(
        (name = "tenant", description = "The key and its tenant"),
        (name = "users", description = "End users, by the tenant's own ids"),
        (name = "keys", description = "Platform keys"),
        (name = "integrations", description = "The catalogue, and the tenant's OAuth clients"),
        (name = "connect", description = "One-time links with which users connect accounts"),
        (name = "connections", description = "External accounts, and their tokens"),
        (name = "workspaces", description = "ElevenLabs workspaces and agents"),
        (name = "grants", description = "Which user may use which agent or voice"),
        (name = "conversations", description = "Runs of an agent for one user"),
        (name = "audit", description = "The audit book"),
        (name = "tools", description = "For the tools of an agent, with a ticket"),
        (name = "hooks", description = "For providers that tell things on their own"),
    ),
)]
pub(super) struct Document;

/// The one write that is not kept for its repetition: a stored answer would be a token that grows old.
const NEVER_REPEATED: &str = "read_token";

/// Adds to `document` what is the same for every call.
pub(super) fn complete(document: &mut utoipa::openapi::OpenApi) {
    let components = document.components.get_or_insert_default();
    components.add_security_scheme(
        "platform_key",
        bearer("A platform key: `vk_live_…` or `vk_test_…`, by the tenant's environment."),
    );
    components.add_security_scheme(
        "ticket",
        bearer("The conversation's ticket: the variable `secret__valetkey_authorization`."),
    );
    let header = "The workspace's `tool_header_value`, from a secret of the ElevenLabs workspace.";
    let workspace = ApiKey::Header(ApiKeyValue::with_description("X-Valetkey-Workspace", header));
    components.add_security_scheme("workspace", SecurityScheme::ApiKey(workspace));
    let signature = ApiKeyValue::with_description("X-Slack-Signature", "Made with the integration's `signing_secret`.");
    components.add_security_scheme("slack_signature", SecurityScheme::ApiKey(ApiKey::Header(signature)));
    let secret =
        ApiKeyValue::with_description("X-Telegram-Bot-Api-Secret-Token", "Set by the vault with `setWebhook`.");
    components.add_security_scheme("telegram_secret", SecurityScheme::ApiKey(ApiKey::Header(secret)));
    for (path, item) in &mut document.paths.paths {
        let is_broker = path.starts_with("/v1/broker/");
        for (method, operation) in operations(item) {
            let is_read =
                matches!(method, HttpMethod::Get | HttpMethod::Head | HttpMethod::Options | HttpMethod::Trace);
            for parameter in operation.parameters.iter_mut().flatten() {
                if let RefOr::T(parameter) = parameter {
                    parameter.schema = parameter.schema.take().map(without_null);
                }
            }
            if let Some(RefOr::T(body)) = &mut operation.request_body {
                body.required.get_or_insert(Required::False);
                for content in body.content.values_mut() {
                    if let RefOr::T(content) = content {
                        content.schema = content.schema.take().map(without_null);
                    }
                }
            }
            if is_broker {
                let name = serde_json::to_value(&method).unwrap_or_default();
                operation.operation_id = Some(format!("broker_{}", name.as_str().unwrap_or_default()));
                operation.request_body = operation.request_body.take().filter(|_| !is_read);
            }
            // Tools and relays prove themselves in their own way; what has no word of its own wants a platform key.
            let is_platform = operation.security.is_none();
            if is_platform && !is_read && operation.operation_id.as_deref() != Some(NEVER_REPEATED) {
                repeatable(operation);
            }
            answers(operation);
        }
    }
}

/// What may be absent is not null: there is no null in a query or a header, and a body is not `null` but not there.
fn without_null(schema: RefOr<Schema>) -> RefOr<Schema> {
    match schema {
        RefOr::T(Schema::OneOf(mut choice)) => {
            choice.items.retain(
                |one| !matches!(one, RefOr::T(Schema::Object(object)) if object.schema_type == Type::Null.into()),
            );
            match choice.items.len() {
                1 => choice.items.remove(0),
                _ => Schema::OneOf(choice).into(),
            }
        }
        RefOr::T(Schema::Object(mut object)) => {
            if let SchemaType::Array(types) = &mut object.schema_type {
                types.retain(|one| *one != Type::Null);
                if let [only] = types.as_slice() {
                    object.schema_type = only.clone().into();
                }
            }
            Schema::Object(object).into()
        }
        other => other,
    }
}

fn bearer(description: &str) -> SecurityScheme {
    SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description)).build())
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (HttpMethod, &mut Operation)> {
    [
        (HttpMethod::Get, &mut item.get),
        (HttpMethod::Put, &mut item.put),
        (HttpMethod::Post, &mut item.post),
        (HttpMethod::Delete, &mut item.delete),
        (HttpMethod::Options, &mut item.options),
        (HttpMethod::Head, &mut item.head),
        (HttpMethod::Patch, &mut item.patch),
        (HttpMethod::Trace, &mut item.trace),
    ]
    .into_iter()
    .filter_map(|(method, operation)| operation.as_mut().map(|operation| (method, operation)))
}

/// A write that is done once for each `Idempotency-Key` (AP-11).
fn repeatable(operation: &mut Operation) {
    let key = ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "The same request with the same key gets the same answer for 24 hours and has no second effect. 1 to 255 visible ASCII characters; use a random UUID.",
        ))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(255))))
        .build();
    operation.parameters.get_or_insert_default().push(key.into());
    for (status, response) in &mut operation.responses.responses {
        if let (true, RefOr::T(response)) = (status.starts_with('2'), response) {
            response.headers.insert(
                "Idempotency-Replayed".to_owned(),
                text_header("`true` when this is the answer of an earlier request").into(),
            );
        }
    }
}

/// Problems, and the header that every answer has.
fn answers(operation: &mut Operation) {
    let wait = "Whole seconds after which trying again makes sense. Sent where waiting helps: 429, 503, some 502, and 409 `idempotency_conflict`.";
    let refused = problem("The request is refused; `code` says why", wait);
    let failed = problem("It could not be done now; `code` says why", wait);
    let responses = &mut operation.responses.responses;
    responses.insert("4XX".to_owned(), refused.into());
    responses.insert("5XX".to_owned(), failed.into());
    for response in responses.values_mut() {
        if let RefOr::T(response) = response {
            response.headers.insert(
                "X-Request-Id".to_owned(),
                text_header("The request's id, as in a problem's `instance`").into(),
            );
        }
    }
}

fn problem(description: &str, wait: &str) -> Response {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("ProblemBody"))).build();
    let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
    ResponseBuilder::new()
        .description(description)
        .content("application/problem+json", body)
        .header("Retry-After", HeaderBuilder::new().schema(Some(seconds)).description(Some(wait)).build())
        .build()
}

fn text_header(description: &str) -> Header {
    HeaderBuilder::new()
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .description(Some(description))
        .build()
}
