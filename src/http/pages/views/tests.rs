//! Every page with every sample: the same twice, escaped, without inline anything, labelled, and with `csrf`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use askama::Template;

use super::*;

/// Text as a hostile provider or platform would choose it.
pub(super) const EVIL: &str = "<img src=x onerror=alert(1)>\"'><script>alert(2)</script>";
/// A name that wants more room than there is, without a place to break.
pub(super) const LONG: &str =
    "wolfeschlegelsteinhausenbergerdorffwelchevoralternwarengewissenhaft@subdomain.of-a-subdomain.example.com";
/// A name written from right to left, with an override character at its end.
pub(super) const RTL: &str = "مريم عبد الرحمن \u{202e}gnp.exe";

pub(super) fn moment(words: &str) -> Moment {
    let past = words == "just now" || words.ends_with(" ago");
    Moment { exact: "2026-08-08T14:05:00Z".into(), full: "8 August 2026, 14:05 UTC".into(), words: words.into(), past }
}

fn frame(viewer: Viewer) -> Frame {
    Frame { csrf: "Y3NyZg".into(), viewer, notice: None }
}

pub(super) fn nobody() -> Frame {
    frame(Viewer::Nobody)
}

pub(super) fn end_user() -> Frame {
    frame(Viewer::EndUser { name: "Ada Example".into(), platform: "Acme Voice".into(), returns_to: None })
}

/// Somebody whom a platform has sent for a visit.
pub(super) fn visitor() -> Frame {
    let returns_to = WebLink::parse("https://app.acme.example/settings/accounts");
    frame(Viewer::EndUser { name: "u-42".into(), platform: "Acme Voice".into(), returns_to })
}

pub(super) fn member() -> Frame {
    frame(Viewer::Member { name: "owner@acme.example".into(), platform: "Acme Voice".into(), has_connections: false })
}

pub(super) fn google() -> Provider {
    Provider::new("google", "Google")
}

pub(super) fn slack() -> Provider {
    Provider::new("slack", "Slack")
}

pub(super) fn telegram() -> Provider {
    Provider::new("telegram", "Telegram")
}

fn rendered<T: Template>(name: &str, samples: fn() -> Vec<T>) -> Vec<(String, String)> {
    let twice = samples().into_iter().zip(samples()).enumerate();
    twice
        .map(|(index, (first, second))| {
            let html = first.render().expect("renders");
            assert_eq!(html, second.render().expect("renders"), "{name} renders differently the second time");
            (format!("{name}-{index}"), html)
        })
        .collect()
}

/// Every page with every sample, as `(name, html)`.
fn every_page() -> Vec<(String, String)> {
    let pages = vec![
        rendered("sign-in", SignInPage::samples),
        rendered("setup", SetupPage::samples),
        rendered("portal", PortalPage::samples),
        rendered("connect", ConnectPage::samples),
        rendered("link-gone", LinkGonePage::samples),
        rendered("connections", ConnectionsPage::samples),
        rendered("connection", ConnectionPage::samples),
        rendered("disconnect", DisconnectPage::samples),
        rendered("preview", PreviewPage::samples),
        rendered("result", ResultPage::samples),
        rendered("activity", ActivityPage::samples),
        rendered("settings", SettingsPage::samples),
        rendered("admin", AdminPage::samples),
        rendered("refreshing", RefreshingPage::samples),
        rendered("error", ErrorPage::samples),
    ];
    pages.into_iter().flatten().collect()
}

/// The tags of a page, `<input …>` as `input …`. Enough of a parser for pages that we wrote: every `>` in an
/// attribute is escaped, which is one of the things tested.
fn tags(html: &str) -> Vec<&str> {
    html.split('<').skip(1).map(|rest| rest.split('>').next().unwrap_or(rest)).collect()
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    tag.split_once(&format!(" {name}=\"")).and_then(|(_, rest)| rest.split('"').next())
}

#[test]
fn foreign_text_is_always_escaped() {
    // WB-07: names, addresses, scopes and errors from outside are text.
    for (name, html) in every_page() {
        assert!(!html.contains("<img"), "{name}: an image got in");
        assert!(!html.contains("<script>"), "{name}: a script got in");
        assert!(!html.contains("javascript:"), "{name}: a script address got in");
        assert!(!html.contains(EVIL), "{name}: the raw text got in");
    }
}

#[test]
fn nothing_is_inline_and_nothing_is_loaded_from_elsewhere() {
    // WB-04: the policy has no room for inline styles, scripts or handlers.
    for (name, html) in every_page() {
        for tag in tags(&html) {
            assert!(!tag.starts_with("style"), "{name}: {tag}");
            assert!(attribute(tag, "style").is_none(), "{name}: {tag}");
            let names: String = tag.split('"').step_by(2).collect();
            assert!(
                names.split_whitespace().all(|one| !(one.starts_with("on") && one.ends_with('='))),
                "{name}: {tag}"
            );
            let loads = ["script", "link", "img", "iframe"].iter().any(|one| tag.starts_with(one));
            if loads {
                let from = attribute(tag, "src").or_else(|| attribute(tag, "href")).unwrap_or_default();
                assert!(from.starts_with("/static/"), "{name}: {tag}");
            }
        }
        assert_eq!(html.contains("<script"), html.contains("popup-message"), "{name}: scripts are for popups only");
    }
}

#[test]
fn every_form_that_posts_carries_csrf_and_goes_to_a_path_of_ours() {
    for (name, html) in every_page() {
        for form in html.split("<form").skip(1) {
            let (tag, rest) = form.split_once('>').expect("tag");
            let body = rest.split("</form>").next().expect("body");
            assert!(
                attribute(tag, "action").is_some_and(|to| to.starts_with('/') && !to.starts_with("//")),
                "{name}: {tag}"
            );
            match attribute(tag, "method") {
                Some("post") => assert_eq!(body.matches("name=\"csrf\"").count(), 1, "{name}: {tag}"),
                Some("get") => assert!(!body.contains("csrf"), "{name}: csrf would stand in the address: {tag}"),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}

#[test]
fn forms_that_change_a_connection_say_so() {
    const WORDS: [&str; 5] = ["continue", "connect", "disconnect", "reconnect", "confirm"];
    let mut seen = BTreeSet::new();
    for (name, html) in every_page() {
        for tag in tags(&html).into_iter().filter(|tag| tag.starts_with("form")) {
            let changes = attribute(tag, "action").is_some_and(|to| to.starts_with("/connect"));
            let word = attribute(tag, "data-vk");
            assert_eq!(changes, word.is_some(), "{name}: {tag}");
            seen.extend(word.map(str::to_owned));
        }
    }
    assert_eq!(seen, WORDS.map(str::to_owned).into());
}

#[test]
fn every_input_has_a_label_and_every_id_stands_once() {
    for (name, html) in every_page() {
        let tags = tags(&html);
        let all =
            |attribute_name| tags.iter().filter_map(move |tag| attribute(tag, attribute_name)).collect::<Vec<_>>();
        let ids = all("id");
        let labels: BTreeSet<_> = all("for").into_iter().collect();
        for input in tags.iter().filter(|tag| tag.starts_with("input") && attribute(tag, "type") != Some("hidden")) {
            assert!(attribute(input, "id").is_some_and(|id| labels.contains(id)), "{name}: no label for {input}");
        }
        let unique: BTreeSet<_> = ids.iter().collect();
        assert_eq!(unique.len(), ids.len(), "{name}: an id stands twice");
        for pointer in ["aria-labelledby", "aria-describedby"] {
            for id in all(pointer).into_iter().flat_map(str::split_whitespace) {
                assert!(unique.contains(&id), "{name}: {pointer} points at nothing: {id}");
            }
        }
    }
}

#[test]
fn every_page_has_its_landmarks_one_heading_and_a_language() {
    for (name, html) in every_page() {
        for part in ["<html lang=\"en\"", "class=\"skip\" href=\"#main\"", "<main id=\"main\"", "<header", "<footer"] {
            assert!(html.contains(part), "{name}: {part}");
        }
        assert_eq!(html.matches("<h1").count(), 1, "{name}");
        assert!(!html.contains("<title> ·"), "{name}: no title");
    }
}

#[test]
fn no_template_turns_escaping_off() {
    fn read(folder: &Path, texts: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).expect("templates") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                read(&path, texts);
            } else {
                texts.push((path.display().to_string(), fs::read_to_string(&path).expect("text")));
            }
        }
    }
    let mut texts = Vec::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("templates"), &mut texts);
    assert!(texts.len() > 15);
    for (path, text) in texts {
        assert!(!text.contains("|safe") && !text.contains("escape(\"none\")"), "{path}");
    }
}

#[test]
fn only_web_addresses_become_links() {
    for bad in
        ["javascript:alert(1)", "data:text/html,x", "//evil.example", "https://a@evil.example", "/x", "mailto:a@b"]
    {
        assert_eq!(WebLink::parse(bad), None, "{bad}");
    }
    assert_eq!(WebLink::parse("http://127.0.0.1:9/x").map(|link| link.place()).as_deref(), Some("127.0.0.1:9"));
}

#[test]
fn a_notice_is_read_back_as_it_was_written_and_nothing_else_is() {
    for notice in Notice::ALL {
        assert_eq!(Notice::parse(notice.as_str()), Some(notice));
    }
    assert_eq!(Notice::parse(EVIL), None);
}

#[test]
fn a_gallery_of_every_page_is_written() {
    // For looking: target/pages/index.html, with the stylesheet beside the pages.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = root.join("target").join("pages");
    fs::create_dir_all(&target).expect("folder");
    for file in ["valetkey.css", "favicon.svg"] {
        fs::copy(root.join("static").join(file), target.join(file)).expect("static file");
    }
    let mut index = String::from("<!doctype html><meta charset=\"utf-8\"><title>Pages</title><ul>");
    for (name, html) in every_page() {
        fs::write(target.join(format!("{name}.html")), html.replace("/static/", "")).expect("page");
        index.push_str(&format!("<li><a href=\"{name}.html\">{name}</a>"));
    }
    fs::write(target.join("index.html"), index).expect("index");
}
