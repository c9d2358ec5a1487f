//! Reading enough HTML to use a page: tags, their attributes, forms and what they would send.
//!
//! It reads well-formed server-rendered pages, ours and the sandbox's. It runs no scripts, builds no tree
//! and ignores the `form` attribute of controls outside their form.

use std::collections::BTreeMap;

/// A start tag with its attributes and the text up to the next tag.
#[derive(Clone, Debug, Default)]
pub struct Element {
    /// The tag's name in lower case.
    pub name: String,
    attributes: BTreeMap<String, String>,
    /// The text that follows the tag, entities decoded, trimmed.
    pub text: String,
}

impl Element {
    /// The value of an attribute, entities decoded; an attribute without a value has the empty text.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }

    /// Whether `selector` is this element's `data-vk`, `id` or `name`.
    #[must_use]
    pub fn is_called(&self, selector: &str) -> bool {
        ["data-vk", "id", "name"].iter().any(|attribute| self.attribute(attribute) == Some(selector))
    }
}

/// A form with the values it would send untouched.
#[derive(Clone, Debug, Default)]
pub struct Form {
    /// The form's own tag.
    pub element: Element,
    /// Names and values of hidden, text, checked and selected controls, in the order of the page.
    pub fields: Vec<(String, String)>,
    /// The buttons that submit it.
    pub buttons: Vec<Element>,
    /// The choices of checkboxes and radio buttons, ticked or not.
    pub choices: Vec<(String, String)>,
}

enum Tag {
    Open(Element),
    Close(String),
}

/// Every start tag of the page, in order.
#[must_use]
pub fn elements(html: &str) -> Vec<Element> {
    let open = |tag| if let Tag::Open(element) = tag { Some(element) } else { None };
    tags(html).into_iter().filter_map(open).collect()
}

/// Every form of the page, in order.
#[must_use]
pub fn forms(html: &str) -> Vec<Form> {
    let (mut forms, mut current, mut select): (_, Option<Form>, Option<Select>) = (Vec::new(), None, None);
    for tag in tags(html) {
        match (tag, current.as_mut()) {
            (Tag::Open(element), _) if element.name == "form" => {
                forms.extend(current.replace(Form { element, ..Form::default() }));
            }
            (Tag::Close(name), _) if name == "form" => forms.extend(current.take()),
            (Tag::Close(name), Some(form)) if name == "select" => {
                form.fields.extend(select.take().and_then(Select::chosen));
            }
            (Tag::Open(element), Some(_)) if element.name == "select" => {
                select = element.attribute("name").map(|name| Select { name: name.to_owned(), ..Select::default() });
            }
            (Tag::Open(element), Some(_)) if element.name == "option" => {
                if let Some(select) = select.as_mut() {
                    select.add(&element);
                }
            }
            (Tag::Open(element), Some(form)) => read_control(form, element),
            _ => {}
        }
    }
    forms.extend(current);
    forms
}

#[derive(Default)]
struct Select {
    name: String,
    first: Option<String>,
    selected: Option<String>,
}

impl Select {
    fn add(&mut self, option: &Element) {
        let value = option.attribute("value").unwrap_or(&option.text).to_owned();
        if option.attribute("selected").is_some() {
            self.selected = Some(value.clone());
        }
        self.first.get_or_insert(value);
    }

    fn chosen(self) -> Option<(String, String)> {
        let value = self.selected.or(self.first)?;
        Some((self.name, value))
    }
}

fn read_control(form: &mut Form, element: Element) {
    let kind = element.attribute("type").unwrap_or("").to_ascii_lowercase();
    let is_button = element.name == "button" && (kind.is_empty() || kind == "submit");
    if is_button || (element.name == "input" && kind == "submit") {
        form.buttons.push(element);
        return;
    }
    let (Some(name), None) = (element.attribute("name"), element.attribute("disabled")) else { return };
    let value = element.attribute("value");
    match (element.name.as_str(), kind.as_str()) {
        ("input", "checkbox" | "radio") => {
            let pair = (name.to_owned(), value.unwrap_or("on").to_owned());
            if element.attribute("checked").is_some() {
                form.fields.push(pair.clone());
            }
            form.choices.push(pair);
        }
        ("input", "button" | "reset" | "file" | "image") => {}
        ("input", _) => form.fields.push((name.to_owned(), value.unwrap_or("").to_owned())),
        ("textarea", _) => form.fields.push((name.to_owned(), element.text.clone())),
        _ => {}
    }
}

fn tags(html: &str) -> Vec<Tag> {
    let (mut tags, mut rest) = (Vec::new(), html);
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        if let Some(comment) = rest.strip_prefix("!--") {
            rest = comment.split_once("-->").map_or("", |(_, after)| after);
        } else if let Some(closing) = rest.strip_prefix('/') {
            let (name, after) = closing.split_once('>').unwrap_or((closing, ""));
            tags.push(Tag::Close(name.trim().to_ascii_lowercase()));
            rest = after;
        } else if rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
            let (element, after) = read_tag(rest);
            rest = after;
            if element.name == "script" || element.name == "style" {
                let end = format!("</{}", element.name);
                rest = rest.find(&end).map_or("", |at| &rest[at..]);
            }
            tags.push(Tag::Open(element));
        }
    }
    tags
}

/// Reads one start tag; `text` begins with its name.
fn read_tag(text: &str) -> (Element, &str) {
    let end = text.find(|c: char| c.is_whitespace() || c == '>' || c == '/').unwrap_or(text.len());
    let mut element = Element { name: text[..end].to_ascii_lowercase(), ..Element::default() };
    let mut rest = &text[end..];
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '/');
        if rest.is_empty() {
            break;
        }
        if let Some(after) = rest.strip_prefix('>') {
            rest = after;
            break;
        }
        let end = rest.find(|c: char| c.is_whitespace() || "=>/".contains(c)).unwrap_or(rest.len()).max(1);
        let name = rest.get(..end).unwrap_or(rest).to_ascii_lowercase();
        rest = rest.get(end..).unwrap_or("").trim_start();
        let mut value = String::new();
        if let Some(after) = rest.strip_prefix('=') {
            let (raw, after) = read_value(after.trim_start());
            value = decoded(raw);
            rest = after;
        }
        element.attributes.entry(name).or_insert(value);
    }
    let text_end = rest.find('<').unwrap_or(rest.len());
    decoded(&rest[..text_end]).trim().clone_into(&mut element.text);
    (element, rest)
}

fn read_value(text: &str) -> (&str, &str) {
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote) {
            return inner.split_once(quote).unwrap_or((inner, ""));
        }
    }
    let end = text.find(|c: char| c.is_whitespace() || c == '>').unwrap_or(text.len());
    text.split_at(end)
}

/// Decodes numeric entities and the five named ones that templates write.
fn decoded(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let entity = rest[1..].split_once(';').filter(|(name, _)| name.len() <= 8);
        match entity.and_then(|(name, after)| Some((character(name)?, after))) {
            Some((character, after)) => {
                out.push(character);
                rest = after;
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out + rest
}

fn character(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some('\u{a0}'),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"<!-- <form name="no"> --><style>a<b</style>
        <form name="f" data-vk="account-form" method=post action='/go?a=1&amp;b=2'>
        <input type=hidden name=csrf value="x&#34;y&#x27;z"><input name="empty">
        <input type="checkbox" name="c" value="1" checked><input type="checkbox" name="c" value="2">
        <select name="s"><option value="a">A<option value="b" selected>B</select>
        <textarea name="t">a &lt; b &unknown;</textarea><input name="off" disabled value="1">
        <button name="decision" value="yes">Yes &amp; go</button><button type="button" name="x">No</button></form>"#;

    #[test]
    fn a_form_is_read_as_a_browser_would_send_it() {
        let forms = forms(PAGE);
        assert_eq!(forms.len(), 1, "a form in a comment is none");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected =
            [pair("csrf", "x\"y'z"), pair("empty", ""), pair("c", "1"), pair("s", "b"), pair("t", "a < b &unknown;")];
        assert_eq!(forms[0].fields, expected);
        assert_eq!(forms[0].element.attribute("action"), Some("/go?a=1&b=2"));
        assert_eq!(forms[0].buttons.len(), 1);
        assert_eq!(forms[0].buttons[0].text, "Yes & go");
        assert!(forms[0].element.is_called("account-form") && forms[0].element.is_called("f"));
    }

    #[test]
    fn broken_markup_ends_without_a_panic() {
        for text in
            ["<", "<a", "<a href", "<a href=", "<a href='", "</", "<!--", "&", "&#x;", "<ä", "<a =ä>", "<a é=\"ü\""]
        {
            let _ = forms(text);
            let _ = elements(text);
            let _ = decoded(text);
        }
    }
}
