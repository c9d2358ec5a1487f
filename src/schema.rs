//! Words for the OpenAPI document: texts that are one of a few words. It describes types and is no part of how they are
//! read or written, so every floor may use it beside its own types.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

/// A text that is one of `words`.
pub fn one_of(description: &str, words: impl IntoIterator<Item = &'static str>) -> RefOr<Schema> {
    let described = Some(description.trim()).filter(|text| !text.is_empty());
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(described)
        .enum_values(Some(words.into_iter().collect::<Vec<_>>()))
        .into()
}

/// A text of the form `pattern` (a regular expression).
pub fn text_like(description: &str, pattern: impl Into<String>) -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).description(Some(description.trim())).pattern(Some(pattern)).into()
}

/// Names for the document's closed lists of words: `words! { /// What it is. Colour: "red" | "green"; }`. The name is
/// written as the `value_type` of a field that is a text in Rust.
macro_rules! words {
    ($($(#[doc = $doc:literal])* $name:ident: $($word:literal)|+;)*) => {$(
        $(#[doc = $doc])*
        #[derive(Debug)]
        pub enum $name {}

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                $crate::schema::one_of(concat!($($doc),*), [$($word),+])
            }
        }

        impl utoipa::ToSchema for $name {}
    )*};
}
pub(crate) use words;

#[cfg(test)]
mod tests {
    use utoipa::{PartialSchema, ToSchema};

    words! {
        /// What a lamp shows.
        Light: "red" | "green";
    }

    #[test]
    fn words_become_a_named_enum() {
        let schema = serde_json::to_value(Light::schema()).expect("serializes");
        let expected =
            serde_json::json!({"type": "string", "description": "What a lamp shows.", "enum": ["red", "green"]});
        assert_eq!((schema, &*Light::name()), (expected, "Light"));
    }
}
