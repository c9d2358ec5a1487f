//! The three static files, compiled in.

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

use crate::http::Problem;

#[derive(RustEmbed)]
#[folder = "static/"]
struct Files;

/// `GET /static/{file}`: kept for a day, then asked for again by its tag.
pub(super) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    let kind = match name.as_str() {
        "valetkey.css" => "text/css; charset=utf-8",
        "valetkey.js" => "text/javascript; charset=utf-8",
        "favicon.svg" => "image/svg+xml",
        _ => return Err(Problem::not_found()),
    };
    let file = Files::get(&name).ok_or_else(Problem::not_found)?;
    let tag = format!("\"{}\"", data_encoding::HEXLOWER.encode(&file.metadata.sha256_hash()[..16]));
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let kept = [(header::ETAG, tag.clone()), (header::CACHE_CONTROL, "public, max-age=86400".to_owned())];
    if known.is_some_and(|tags| tags.split(',').any(|one| one.trim().trim_start_matches("W/") == tag)) {
        return Ok((StatusCode::NOT_MODIFIED, kept).into_response());
    }
    Ok((kept, [(header::CONTENT_TYPE, kind)], file.data.into_owned()).into_response())
}
