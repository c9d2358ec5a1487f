//! JSON into our own types, more strictly than serde does it: where a type has named fields only an object will do, not a
//! list of their values. What does not fit is told in words of JSON, never in those of Rust, and without what was sent.

use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer, StringDeserializer};
use serde::de::{
    DeserializeOwned, Deserializer, Error, Expected, IntoDeserializer, Unexpected, VariantAccess, Visitor,
};
use serde_json::{Number, Value};

use crate::invalid::Invalid;

/// The longest path that is shown: names in it may be a client's.
const MOST_PATH: usize = 100;
const NO_FORM: &str = "does not have the right form";

/// Reads `value` as a `T`.
///
/// # Errors
/// Names the field by its path and says what belongs there.
pub(super) fn read<T: DeserializeOwned>(value: Value) -> Result<T, Invalid> {
    serde_path_to_error::deserialize(Json(value)).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { "" } else { path.as_str() };
        match error.into_inner() {
            // The reader of paths has already put an unknown field at the end, unless serde read the object ahead.
            Misfit::Unknown(name) => Invalid::one(shortened(&ending_in(path, &name)), "is not a field of this request"),
            Misfit::Missing(name) => Invalid::one(shortened(&below(path, name)), "is required"),
            Misfit::Wanted(what) => Invalid::one(shortened(path), format!("must be {what}")),
            Misfit::Other => Invalid::one(shortened(path), NO_FORM),
        }
    })
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn ending_in(path: &str, name: &str) -> String {
    let there = path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if there { path.to_owned() } else { below(path, name) }
}

/// Names that a client made up are shown, but not at any length.
fn shortened(path: &str) -> String {
    path.chars().filter(|character| !character.is_control()).take(MOST_PATH).collect()
}

/// Why a value does not fit. Holds names of fields, and nothing else that was sent.
#[derive(Debug)]
enum Misfit {
    Unknown(String),
    Missing(&'static str),
    Wanted(String),
    Other,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NO_FORM)
    }
}

impl std::error::Error for Misfit {}

impl Error for Misfit {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Other
    }

    fn invalid_type(_: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        plain(&wanted.to_string()).map_or(Self::Other, Self::Wanted)
    }

    fn invalid_value(unexpected: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::invalid_type(unexpected, wanted)
    }

    fn invalid_length(_: usize, wanted: &dyn Expected) -> Self {
        plain(&wanted.to_string()).map_or(Self::Other, Self::Wanted)
    }

    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        Self::Wanted(one_of(known))
    }

    fn unknown_field(name: &str, _: &'static [&'static str]) -> Self {
        Self::Unknown(name.to_owned())
    }

    fn missing_field(name: &'static str) -> Self {
        Self::Missing(name)
    }

    fn duplicate_field(_: &'static str) -> Self {
        Self::Other
    }
}

fn one_of(known: &[&str]) -> String {
    match known {
        [only] => (*only).to_owned(),
        _ => format!("one of {}", known.join(", ")),
    }
}

/// What serde and its derived code expect, in words of JSON; none when there are none.
fn plain(wanted: &str) -> Option<String> {
    let word = match wanted {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "u128" | "usize" => "a whole number, not negative",
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a character" | "a string" | "a borrowed string" | "variant identifier" | "string or map" => "a string",
        "a sequence" => "an array",
        "a map" => "an object",
        other if names_fields(other) => "an object",
        _ => return None,
    };
    Some(word.to_owned())
}

/// True for the expectation of a type with named fields.
fn names_fields(wanted: &str) -> bool {
    ["struct ", "internally tagged enum "].iter().any(|start| wanted.starts_with(start))
        || wanted.contains("struct variant ")
}

/// A value on its way into a type of ours.
struct Json(Value);

impl IntoDeserializer<'_, Misfit> for Json {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// What `value` is, without its content.
fn kind(value: &Value) -> Unexpected<'static> {
    match value {
        Value::Null => Unexpected::Unit,
        Value::Bool(yes) => Unexpected::Bool(*yes),
        Value::Number(_) => Unexpected::Other("number"),
        Value::String(_) => Unexpected::Other("string"),
        Value::Array(_) => Unexpected::Seq,
        Value::Object(_) => Unexpected::Map,
    }
}

fn visit_number<'de, V: Visitor<'de>>(number: &Number, visitor: V) -> Result<V::Value, Misfit> {
    if let Some(whole) = number.as_u64() {
        visitor.visit_u64(whole)
    } else if let Some(whole) = number.as_i64() {
        visitor.visit_i64(whole)
    } else {
        visitor.visit_f64(number.as_f64().ok_or(Misfit::Other)?)
    }
}

impl<'de> Deserializer<'de> for Json {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(yes) => visitor.visit_bool(yes),
            Value::Number(number) => visit_number(&number, visitor),
            Value::String(text) => visitor.visit_string(text),
            // Derived code would take the values of the fields in their order.
            Value::Array(_) if names_fields(&(&visitor as &dyn Expected).to_string()) => {
                Err(Misfit::invalid_type(Unexpected::Seq, &visitor))
            }
            Value::Array(items) => {
                let mut items = SeqDeserializer::new(items.into_iter().map(Json));
                let taken = visitor.visit_seq(&mut items)?;
                items.end().map(|()| taken)
            }
            Value::Object(fields) => {
                let mut fields = MapDeserializer::new(fields.into_iter().map(|(name, value)| (name, Json(value))));
                let taken = visitor.visit_map(&mut fields)?;
                fields.end().map(|()| taken)
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        if self.0.is_object() {
            self.deserialize_any(visitor)
        } else {
            Err(Misfit::invalid_type(kind(&self.0), &"a map"))
        }
    }

    /// Names from a list: every enum of ours that is not an object with a `type`.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        match self.0 {
            Value::String(name) => visitor.visit_enum(Name(name.into_deserializer())),
            _ => Err(Misfit::Wanted(one_of(known))),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

/// A name from a list.
struct Name(StringDeserializer<Misfit>);

impl<'de> serde::de::EnumAccess<'de> for Name {
    type Error = Misfit;
    type Variant = Nothing;

    fn variant_seed<S: serde::de::DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Nothing), Misfit> {
        Ok((seed.deserialize(self.0)?, Nothing))
    }
}

/// A name has nothing beside it.
struct Nothing;

impl<'de> VariantAccess<'de> for Nothing {
    type Error = Misfit;

    fn unit_variant(self) -> Result<(), Misfit> {
        Ok(())
    }

    fn newtype_variant_seed<S: serde::de::DeserializeSeed<'de>>(self, _: S) -> Result<S::Value, Misfit> {
        Err(Misfit::Other)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Misfit> {
        Err(Misfit::Other)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Misfit> {
        Err(Misfit::Other)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::conversations::{ChannelRequest, StartRequest};
    use crate::ids::UserId;
    use crate::secret::Secret;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        inner: Vec<Inner>,
        kind: Option<Kind>,
        place: Option<Place>,
        id: Option<UserId>,
        #[serde(default)]
        map: BTreeMap<String, Inner>,
        #[serde(default)]
        anything: Value,
        yes: Option<bool>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        count: u8,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Redirect,
        Popup,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
    enum Place {
        Here {},
        There { far: Option<u64> },
    }

    fn misfit(value: Value) -> (String, String) {
        let error = read::<Outer>(value).expect_err("refused").0.remove(0);
        (error.field, error.message)
    }

    #[test]
    fn what_fits_is_read_as_serde_reads_it() {
        let whole = json!({"inner": [{"count": 3}], "kind": "popup", "place": {"type": "there", "far": 9}, "yes": true,
            "map": {"a": {"count": 1}}, "anything": [{"b": -1.5}, null, i64::MIN, u64::MAX]});
        let read_here: Outer = read(whole.clone()).expect("fits");
        assert_eq!(read_here, serde_json::from_value(whole).expect("fits"));
        assert_eq!(read_here.place, Some(Place::There { far: Some(9) }));
        assert_eq!(
            read::<Outer>(json!({"inner": [], "place": {"type": "here"}})).expect("fits").place,
            Some(Place::Here {})
        );
        assert_eq!(read::<Secret>(json!("s3cret")).expect("a text").expose(), "s3cret");
        assert!(read::<Outer>(json!({"inner": [], "id": null, "kind": null})).is_ok());
    }

    #[test]
    fn what_does_not_fit_is_named_by_its_path_in_words_of_json() {
        let is = |value: Value, field: &str, message: &str| {
            assert_eq!(misfit(value.clone()), (field.to_owned(), message.to_owned()), "{value}");
        };
        is(json!({"inner": [{"count": 1}, {}]}), "inner[1].count", "is required");
        is(json!({}), "inner", "is required");
        is(json!({"inner": [], "extra": 1}), "extra", "is not a field of this request");
        is(json!({"inner": [{"count": 1, "x": 2}]}), "inner[0].x", "is not a field of this request");
        is(json!({"inner": [{"count": "many"}]}), "inner[0].count", "must be a whole number from 0 to 255");
        is(json!({"inner": [{"count": 256}]}), "inner[0].count", "must be a whole number from 0 to 255");
        is(json!({"inner": [{"count": -1}]}), "inner[0].count", "must be a whole number from 0 to 255");
        is(json!({"inner": {}}), "inner", "must be an array");
        is(json!({"inner": [], "kind": "sideways"}), "kind", "must be one of redirect, popup");
        is(json!({"inner": [], "kind": {"popup": null}}), "kind", "must be one of redirect, popup");
        is(json!({"inner": [], "yes": "yes"}), "yes", "must be true or false");
        is(json!({"inner": [], "id": 7}), "id", "must be a string");
        is(json!({"inner": [], "id": "x"}), "id", "does not have the right form");
        is(json!({"inner": [], "map": []}), "map", "must be an object");
        is(
            json!({"inner": [], "place": {"type": "there", "far": "x"}}),
            "place",
            "must be a whole number, not negative",
        );
        is(json!({"inner": [], "place": {"type": "nowhere"}}), "place.type", "must be one of here, there");
        is(json!({"inner": [], "place": {}}), "place.type", "is required");
    }

    #[test]
    fn a_list_of_values_is_no_object_at_any_depth() {
        for (value, field) in [
            (json!([[], null]), ""),
            (json!("text"), ""),
            (json!({"inner": [[1]]}), "inner[0]"),
            (json!({"inner": [], "map": {"a": [1]}}), "map.a"),
            (json!({"inner": [], "place": ["here"]}), "place"),
            (json!({"inner": [], "place": ["here", {}]}), "place"),
            (json!({"inner": [], "place": "here"}), "place"),
        ] {
            assert_eq!(misfit(value.clone()), (field.to_owned(), "must be an object".to_owned()), "{value}");
        }
    }

    #[test]
    fn kinds_of_things_refuse_unknown_fields_too() {
        let place = json!({"inner": [], "place": {"type": "here", "x": 1}});
        assert_eq!(misfit(place), ("place.x".to_owned(), "is not a field of this request".to_owned()));
        for channel in ["relay", "websocket"] {
            let start =
                |channel: Value| read::<StartRequest>(json!({"agent_id": "a", "user": "u", "channel": channel}));
            let refused = start(json!({"type": channel, "x": 1})).expect_err("refused");
            assert_eq!(refused, Invalid::one("channel.x", "is not a field of this request"));
            assert!(start(json!([channel])).is_err());
            let taken = start(json!({"type": channel})).expect("fits").channel;
            assert_eq!(taken == ChannelRequest::default(), channel == "relay");
        }
    }

    #[test]
    fn nothing_that_was_sent_and_nothing_of_rust_comes_back() {
        for value in [
            json!({"inner": [{"count": "canary"}]}),
            json!({"inner": "canary, expected canary at line"}),
            json!({"inner": [], "kind": "canary"}),
            json!({"inner": [], "place": {"type": "canary"}}),
            json!({"inner": [], "place": {"type": "there", "far": "canary"}}),
            json!({"inner": [], "id": "canary"}),
            json!(["canary"]),
        ] {
            let told = read::<Outer>(value).expect_err("refused").to_string();
            for word in ["canary", "Outer", "Inner", "Place", "struct", "enum", "u8", "u64", "variant"] {
                assert!(!told.contains(word), "{told}");
            }
        }
    }
}
