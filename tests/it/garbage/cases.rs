//! What a token endpoint may say: by name, byte for byte, and what is made of it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::post::Part;

/// What is made of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// A token set, with this life in seconds.
    Stored(i64),
    /// Nothing that can be read after the request was sent. A provider that rotates may have spent the token.
    Lost,
    /// A server said that it failed. A provider that rotates may have spent the token, though probably it has not.
    ServerError(String),
    /// The token is good still, and this is why there is no new one.
    Failed(String),
    /// The provider wants fewer calls.
    RateLimited,
    /// The integration is at fault.
    Misconfigured(&'static str),
    /// The person has to consent again.
    Reauth(&'static str),
}

/// One answer.
pub struct Case {
    pub name: &'static str,
    /// What it is at Google, whose refresh tokens stay, and at Slack, whose tokens are good once; none: not asked there.
    pub google: Option<Made>,
    pub slack: Option<Made>,
    /// Made of the token set that a good answer would have.
    pub parts: fn(&Good) -> Vec<Part>,
}

/// What a good answer would say.
pub struct Good {
    pub access: String,
    pub refresh: String,
    /// The refresh token that was sent.
    pub sent: String,
}

impl Good {
    fn value(&self) -> Value {
        json!({"ok": true, "access_token": self.access, "refresh_token": self.refresh, "expires_in": 3600,
            "token_type": "Bearer", "scope": "openid"})
    }

    fn text(&self) -> String {
        self.value().to_string()
    }

    /// A good answer but for one field.
    fn with(&self, name: &str, value: Value) -> Vec<Part> {
        let mut all = self.value();
        all[name] = value;
        ok(all.to_string())
    }

    fn without(&self, name: &str) -> Vec<Part> {
        let mut all = self.value();
        all.as_object_mut().expect("an object").remove(name);
        ok(all.to_string())
    }

    /// A good answer in which this text stands in the place of a value.
    fn raw(&self, name: &str, text: &str) -> Vec<Part> {
        let mut all = self.value();
        all[name] = "PLACE".into();
        ok(all.to_string().replace("\"PLACE\"", text))
    }
}

const HTML: &str = "<!doctype html><html><head><title>Sign in</title></head><body><form>Sign in</form></body></html>";

/// A well-formed answer.
fn http(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<Part> {
    let body = body.as_ref();
    let mut bytes = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    vec![Part::Bytes(bytes)]
}

fn ok(body: impl AsRef<[u8]>) -> Vec<Part> {
    http("200 OK", "Content-Type: application/json;charset=utf-8\r\n", body)
}

fn bytes(text: impl Into<Vec<u8>>) -> Vec<Part> {
    vec![Part::Bytes(text.into())]
}

/// 57 KiB that would become 60 MB.
fn bomb() -> Vec<u8> {
    let script = "head -c 58000000 /dev/zero | gzip -9n";
    std::process::Command::new("/bin/sh").args(["-c", script]).output().expect("gzip").stdout
}

fn case(name: &'static str, google: Option<Made>, slack: Option<Made>, parts: fn(&Good) -> Vec<Part>) -> Case {
    Case { name, google, slack, parts }
}

fn both(name: &'static str, made: Made, parts: fn(&Good) -> Vec<Part>) -> Case {
    case(name, Some(made.clone()), Some(made), parts)
}

fn lost(name: &'static str, parts: fn(&Good) -> Vec<Part>) -> Case {
    both(name, Made::Lost, parts)
}

fn failed(name: &'static str, code: &str, parts: fn(&Good) -> Vec<Part>) -> Case {
    both(name, Made::Failed(code.to_owned()), parts)
}

/// Where only a provider that rotates may have spent the token.
fn half(name: &'static str, code: &str, parts: fn(&Good) -> Vec<Part>) -> Case {
    case(name, Some(Made::Failed(code.to_owned())), Some(Made::Lost), parts)
}

/// Some server has failed on the way, or at its end.
fn server_error(name: &'static str, code: &str, parts: fn(&Good) -> Vec<Part>) -> Case {
    case(name, Some(Made::Failed(code.to_owned())), Some(Made::ServerError(code.to_owned())), parts)
}

fn stored(name: &'static str, life: i64, parts: fn(&Good) -> Vec<Part>) -> Case {
    both(name, Made::Stored(life), parts)
}

/// Answers that are accepted although they are odd: what is lost here is lost for ever.
pub fn accepted() -> Vec<Case> {
    let year = 365 * 86_400;
    vec![
        stored("as_it_should_be", 3600, |good| ok(good.text())),
        stored("expires_in_as_text", 3599, |good| good.with("expires_in", json!("3599"))),
        stored("expires_in_zero", 60, |good| good.with("expires_in", json!(0))),
        stored("expires_in_negative", 60, |good| good.with("expires_in", json!(-1))),
        stored("expires_in_1e18", year, |good| good.raw("expires_in", "1e18")),
        stored("expires_in_float", 3599, |good| good.with("expires_in", json!(3599.9))),
        case("expires_in_absent", Some(Made::Stored(3600)), Some(Made::Stored(43_200)), |good| {
            good.without("expires_in")
        }),
        case("expires_in_text_nan", Some(Made::Stored(3600)), Some(Made::Stored(43_200)), |good| {
            good.with("expires_in", json!("NaN"))
        }),
        case("expires_in_list", Some(Made::Stored(3600)), Some(Made::Stored(43_200)), |good| {
            good.with("expires_in", json!([3600]))
        }),
        stored("unknown_fields", 3600, |good| good.with("new_field", json!({"x": [1, {"y": null}]}))),
        stored("unknown_field_twice", 3600, |good| ok(good.text().replacen('{', "{\"x\":1,\"x\":2,", 1))),
        stored("four_thousand_unknown_fields", 3600, |good| {
            let fields: String = (0..4000).map(|number| format!("\"k{number}\":{number},")).collect();
            ok(good.text().replacen('{', &format!("{{{fields}"), 1))
        }),
        stored("error_null", 3600, |good| good.with("error", Value::Null)),
        stored("json_as_html", 3600, |good| http("200 OK", "Content-Type: text/html\r\n", good.text())),
        stored("json_without_content_type", 3600, |good| http("200 OK", "", good.text())),
        stored("json_after_byte_order_mark", 3600, |good| ok(format!("\u{feff}{}", good.text()))),
        stored("json_among_blanks", 3600, |good| ok(format!(" \r\n\t{}\r\n\n", good.text()))),
        case("form_encoded", Some(Made::Stored(3600)), None, |good| {
            let body = format!("access_token={}&expires_in=3600&scope=a%2Cb&token_type=bearer", good.access);
            http("200 OK", "Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\n", body)
        }),
        case("form_encoded_as_html", Some(Made::Stored(3600)), None, |good| {
            let body = format!("access_token={}&expires_in=3600", good.access);
            http("200 OK", "Content-Type: text/html\r\n", body)
        }),
        stored("scope_as_list", 3600, |good| good.with("scope", json!(["openid", 7, "email"]))),
        stored("scope_with_commas", 3600, |good| good.with("scope", json!("openid,email,"))),
        stored("scope_null", 3600, |good| good.with("scope", Value::Null)),
        stored("token_type_number", 3600, |good| good.with("token_type", json!(7))),
        stored("token_type_with_line_break", 3600, |good| good.with("token_type", json!("Bearer\r\nX-Evil: 1"))),
        stored("refresh_token_empty", 3600, |good| good.with("refresh_token", json!(""))),
        stored("refresh_token_null", 3600, |good| good.with("refresh_token", Value::Null)),
        stored("refresh_token_absent", 3600, |good| good.without("refresh_token")),
        stored("refresh_token_equal", 3600, |good| good.with("refresh_token", json!(good.sent))),
        stored("created_201", 3600, |good| http("201 Created", "", good.text())),
        stored("whole_206", 3600, |good| http("206 Partial Content", "", good.text())),
        stored("one_byte_chunks", 3600, |good| {
            let chunks: String = good.text().chars().map(|one| format!("1\r\n{one}\r\n")).collect();
            bytes(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"))
        }),
        stored("http_1_0_until_the_end", 3600, |good| bytes(format!("HTTP/1.0 200 OK\r\n\r\n{}", good.text()))),
        stored("rubbish_after_the_body", 3600, |good| {
            let text = good.text();
            bytes(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}HTTP/1.1 500 No\r\n\r\n", text.len()))
        }),
        stored("hints_first", 3600, |good| {
            let mut all = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n".to_vec();
            if let Some(Part::Bytes(rest)) = ok(good.text()).first() {
                all.extend_from_slice(rest);
            }
            bytes(all)
        }),
    ]
}

/// After a 2xx, or after no status at all, nothing can be read: whether the token is spent is not known.
fn unreadable() -> Vec<Case> {
    vec![
        lost("html_with_200", |_| http("200 OK", "Content-Type: text/html\r\n", HTML)),
        lost("broken_json", |good| ok(good.text().split_at(30).0)),
        lost("empty_body", |_| ok("")),
        lost("blank_body", |_| ok(" \r\n ")),
        lost("no_content_204", |_| bytes("HTTP/1.1 204 No Content\r\n\r\n")),
        lost("reset_content_205", |_| http("205 Reset Content", "", "")),
        lost("half_206", |good| http("206 Partial Content", "", good.text().split_at(40).0)),
        lost("null", |_| ok("null")),
        lost("number", |_| ok("42")),
        lost("text", |good| ok(format!("\"{}\"", good.access))),
        lost("list", |_| ok("[]")),
        lost("list_of_one_good_answer", |good| ok(format!("[{}]", good.text()))),
        lost("two_answers", |good| ok(format!("{}{}", good.text(), good.text()))),
        lost("words_after_the_answer", |good| ok(format!("{} Have a nice day", good.text()))),
        lost("access_token_twice", |good| ok(good.text().replacen('{', "{\"access_token\":\"ya29.other\",", 1))),
        lost("refresh_token_twice", |good| ok(good.text().replacen('{', "{\"refresh_token\":\"1//other\",", 1))),
        lost("not_utf_8", |_| ok(b"{\"ok\":true,\"access_token\":\"ya29.\xff\xfe\"}")),
        lost("utf_16", |good| {
            ok(format!("\u{feff}{}", good.text()).encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<_>>())
        }),
        lost("expires_in_bare_nan", |good| good.raw("expires_in", "NaN")),
        lost("expires_in_1e400", |good| good.raw("expires_in", "1e400")),
        lost("comments_in_json", |good| ok(format!("/* ok */{}", good.text()))),
        lost("javascript_prefix", |good| ok(format!(")]}}',\n{}", good.text()))),
        lost("gzip_bomb", |_| http("200 OK", "Content-Encoding: gzip\r\n", bomb())),
        lost("brotli", |_| http("200 OK", "Content-Encoding: br\r\n", b"\x0b\x02\x80{}\x03".repeat(400))),
        lost("deflate", |_| {
            http("200 OK", "Content-Encoding: deflate\r\n", b"\x78\x9c\xab\x56\x02\x00\x00\xa6\x00\xa0")
        }),
        lost("nested_100000_deep", |_| ok("[".repeat(100_000))),
        lost("nested_100000_deep_in_a_known_field", |_| ok("{\"authed_user\":".repeat(100_000))),
        lost("a_million_fields", |_| {
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"a\":1";
            vec![Part::Bytes(head.into()), Part::Flood(b",\"key\":0".repeat(100), 10_000)]
        }),
        lost("two_gigabytes", |_| {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let mut chunk = b"8000\r\n".to_vec();
            chunk.extend_from_slice(&[b' '; 0x8000]);
            chunk.extend_from_slice(b"\r\n");
            vec![Part::Bytes(head.into()), Part::Flood(chunk, 65_536)]
        }),
        lost("two_gigabytes_announced", |_| {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 2147483648\r\n\r\n";
            vec![Part::Bytes(head.into()), Part::Flood(vec![b' '; 0x8000], 65_536)]
        }),
    ]
}

/// What is no HTTP, or not all of it.
fn not_http() -> Vec<Case> {
    vec![
        lost("hangs_up_at_once", |_| Vec::new()),
        lost("reset_at_once", |_| vec![Part::Reset]),
        lost("half_a_status_line", |_| bytes("HTTP/1.1 20")),
        lost("half_a_head", |_| bytes("HTTP/1.1 200 OK\r\nContent-Type: appl")),
        lost("no_status_line", |good| bytes(good.text())),
        lost("tls_on_a_plain_port", |_| bytes(b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03\x00\x01".to_vec())),
        lost("another_protocol", |_| bytes("SSH-2.0-OpenSSH_9.2p1\r\n")),
        lost("an_http_2_preface", |_| bytes(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00".to_vec())),
        lost("two_status_lines", |good| {
            bytes(format!("HTTP/1.1 200 OK\r\nHTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}", good.text()))
        }),
        lost("no_status", |good| bytes(format!("HTTP/1.1 OK\r\n\r\n{}", good.text()))),
        lost("status_20", |good| bytes(format!("HTTP/1.1 20 OK\r\n\r\n{}", good.text()))),
        lost("http_7", |good| bytes(format!("HTTP/7.0 200 OK\r\n\r\n{}", good.text()))),
        lost("null_in_a_header", |good| bytes(format!("HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n{}", good.text()))),
        lost("continue_and_nothing_else", |_| vec![Part::Flood(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), 20_000)]),
        lost("ten_thousand_headers", |good| {
            let headers: String = (0..10_000).map(|number| format!("X-{number}: y\r\n")).collect();
            bytes(format!("HTTP/1.1 200 OK\r\n{headers}Connection: close\r\n\r\n{}", good.text()))
        }),
        lost("endless_headers", |_| {
            vec![
                Part::Bytes(b"HTTP/1.1 200 OK\r\n".to_vec()),
                Part::Flood(b"X-Header: yyyyyyyyyyyy\r\n".repeat(40), 20_000),
            ]
        }),
        lost("one_endless_header", |_| {
            vec![Part::Bytes(b"HTTP/1.1 200 OK\r\nX-Header: ".to_vec()), Part::Flood(vec![b'y'; 8192], 4000)]
        }),
        lost("no_chunks_where_chunks_should_be", |good| {
            bytes(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", good.text()))
        }),
        lost("an_immense_chunk", |good| {
            bytes(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}", good.text()))
        }),
        lost("no_last_chunk", |good| {
            let text = good.text();
            bytes(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{text}\r\n", text.len()))
        }),
        lost("content_length_too_long", |good| {
            bytes(format!("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{}", good.text()))
        }),
        lost("content_length_too_short", |good| {
            bytes(format!("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}", good.text()))
        }),
        lost("content_length_negative", |good| {
            bytes(format!("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}", good.text()))
        }),
        lost("two_content_lengths", |good| {
            let length = good.text().len();
            bytes(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nContent-Length: 5\r\n\r\n{}", good.text()))
        }),
    ]
}

/// What can be read and holds no token that could be stored.
fn no_token() -> Vec<Case> {
    vec![
        failed("nothing_in_it", "access_token_missing", |_| ok("{\"ok\":true}")),
        failed("nested_5000_deep", "access_token_missing", |_| {
            ok(format!("{{\"ok\":true,\"a\":{}1{}}}", "{\"a\":".repeat(5000), "}".repeat(5000)))
        }),
        failed("another_case", "access_token_missing", |good| {
            ok(format!("{{\"ok\":true,\"ACCESS_TOKEN\":\"{}\"}}", good.access))
        }),
        half("refresh_token_only", "access_token_missing", |good| good.without("access_token")),
        half("access_token_null", "access_token_missing", |good| good.with("access_token", Value::Null)),
        half("access_token_empty", "access_token_missing", |good| good.with("access_token", json!(""))),
        half("access_token_number", "access_token_unusable", |good| good.with("access_token", json!(7))),
        half("access_token_true", "access_token_unusable", |good| good.with("access_token", json!(true))),
        half("access_token_list", "access_token_unusable", |good| good.with("access_token", json!([good.access]))),
        half("access_token_object", "access_token_unusable", |good| {
            good.with("access_token", json!({"value": good.access}))
        }),
        half("null_in_the_token", "access_token_unusable", |good| {
            good.with("access_token", json!(format!("{}\0", good.access)))
        }),
        half("line_break_in_the_token", "access_token_unusable", |good| {
            good.with("access_token", json!(format!("{}\r\nX-Evil: 1", good.access)))
        }),
        half("blank_in_the_token", "access_token_unusable", |good| good.with("access_token", json!("Bearer ya29.a"))),
        half("umlaut_in_the_token", "access_token_unusable", |good| good.with("access_token", json!("ya29.\u{e4}"))),
        half("access_token_of_20_kib", "access_token_unusable", |good| {
            good.with("access_token", json!("a".repeat(20 * 1024)))
        }),
        half("refresh_token_number", "refresh_token_unusable", |good| good.with("refresh_token", json!(7))),
        half("refresh_token_number_beside_error_false", "refresh_token_unusable", |good| {
            good.raw("refresh_token", "7,\"error\":false")
        }),
        half("refresh_token_object", "refresh_token_unusable", |good| good.with("refresh_token", json!({}))),
        half("null_in_the_refresh_token", "refresh_token_unusable", |good| good.with("refresh_token", json!("1//\0"))),
        half("refresh_token_of_20_kib", "refresh_token_unusable", |good| {
            good.with("refresh_token", json!("a".repeat(20 * 1024)))
        }),
        case("ok_false", None, Some(Made::Failed("http_200".to_owned())), |_| ok("{\"ok\":false}")),
        case("ok_false_with_tokens", None, Some(Made::Lost), |good| good.with("ok", json!(false))),
        case("ok_as_text", None, Some(Made::Lost), |good| good.with("ok", json!("true"))),
        failed("error_as_number", "unlisted", |_| ok("{\"ok\":false,\"error\":7}")),
        failed("error_with_markup", "unlisted", |_| ok("{\"ok\":false,\"error\":\"<b>no</b>\"}")),
        failed("error_like_a_token", "unlisted", |good| {
            let hex = data_encoding::HEXLOWER.encode(good.access.as_bytes());
            ok(format!("{{\"ok\":false,\"error\":\"{}\"}}", &hex[..40]))
        }),
        failed("error_in_an_object", "whoops", |_| ok("{\"ok\":false,\"error\":{\"status\":\"WHOOPS\"}}")),
        both("dead_grant_with_200", Made::Reauth("invalid_grant"), |_| {
            ok("{\"ok\":false,\"error\":\"invalid_grant\"}")
        }),
        both("wrong_client", Made::Misconfigured("invalid_client"), |_| {
            http("401 Unauthorized", "", "{\"ok\":false,\"error\":\"invalid_client\"}")
        }),
    ]
}

/// Refusals by status.
fn refused() -> Vec<Case> {
    vec![
        failed("switching_protocols_101", "http_101", |_| {
            bytes("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
        }),
        failed("moved_301", "http_301", |_| http("301 Moved", "Location: http://127.0.0.1:1/\r\n", "")),
        failed("found_302", "http_302", |good| http("302 Found", "Location: /token\r\n", good.text())),
        failed("temporary_307", "http_307", |_| http("307 Temporary Redirect", "Location: //evil.example/\r\n", "")),
        failed("permanent_308", "http_308", |_| http("308 Permanent Redirect", "Location: /x\r\n", "")),
        failed("choices_300", "http_300", |good| http("300 Multiple Choices", "", good.text())),
        failed("not_modified_304", "http_304", |_| bytes("HTTP/1.1 304 Not Modified\r\n\r\n")),
        failed("page_with_400", "http_400", |_| http("400 Bad Request", "Content-Type: text/html\r\n", HTML)),
        failed("empty_401", "http_401", |_| http("401 Unauthorized", "WWW-Authenticate: Basic\r\n", "")),
        failed("page_with_403", "http_403", |_| http("403 Forbidden", "", HTML)),
        failed("tokens_with_404", "http_404", |good| http("404 Not Found", "", good.text())),
        failed("two_gigabytes_with_400", "http_400", |_| {
            let head = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
            vec![Part::Bytes(head.into()), Part::Flood(vec![b'y'; 0x8000], 65_536)]
        }),
        failed("timeout_408", "http_408", |_| http("408 Request Timeout", "", "")),
        server_error("away_503", "http_503", |_| http("503 Service Unavailable", "", HTML)),
        failed("status_999", "http_999", |_| http("999 Denied", "", HTML)),
        server_error("page_with_500", "http_500", |_| http("500 Internal Server Error", "", HTML)),
        case("tokens_with_500", Some(Made::Failed("http_500".to_owned())), Some(Made::Lost), |good| {
            http("500 Internal Server Error", "", good.text())
        }),
        server_error("page_with_502", "http_502", |_| http("502 Bad Gateway", "", HTML)),
        server_error("page_with_504", "http_504", |_| http("504 Gateway Timeout", "", HTML)),
        both("too_many", Made::RateLimited, |_| http("429 Too Many Requests", "", "")),
        both("too_many_until_never", Made::RateLimited, |_| {
            http("429 Too Many Requests", "Retry-After: 1000000000000000000\r\n", HTML)
        }),
        both("too_many_until_nonsense", Made::RateLimited, |_| {
            http("429 Too Many Requests", "Retry-After: soon\r\n", "{\"error\":\"slow_down\"}")
        }),
    ]
}

/// What takes its time. Slack, which rotates, would be waited for much longer than this test may last.
pub fn slow() -> Vec<Case> {
    let google = |name, parts| case(name, Some(Made::Lost), None, parts);
    vec![
        google("silence", |_| vec![Part::Hold]),
        google("one_byte_of_head_a_second", |_| {
            vec![Part::Drip(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n".to_vec(), Duration::from_secs(1))]
        }),
        google("one_byte_a_second", |good| {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", good.text().len());
            vec![Part::Bytes(head.into()), Part::Drip(good.text().into(), Duration::from_secs(1))]
        }),
        google("hints_for_ever", |_| {
            let hint = b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec();
            (0..600).flat_map(|_| [Part::Bytes(hint.clone()), Part::Pause(Duration::from_millis(100))]).collect()
        }),
    ]
}

/// Everything that must change nothing.
pub fn garbage() -> Vec<Case> {
    [unreadable(), not_http(), no_token(), refused()].into_iter().flatten().collect()
}
