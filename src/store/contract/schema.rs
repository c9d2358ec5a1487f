//! Both migration trains lead to the same schema, and it keeps tenants apart.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::store::sql;

/// Tables without a tenant (name, why).
const WITHOUT_TENANT: &[(&str, &str)] = &[
    ("tenants", "its id is the tenant"),
    ("sessions", "found by the hash of a cookie, before any tenant is known"),
    ("root_keys", "keys of the installation"),
    ("bound_addresses", "where the installation listens"),
];
/// Tables of tenants whose primary key does not begin with the tenant (name, why).
const OTHER_KEY: &[(&str, &str)] = &[("one_time_links", "found by the hash of a link; set-up has no tenant yet")];
/// Tables with a tenant column whose first key column has another name (name, why).
const REFERENCED_WITHOUT_TENANT: &[&str] = &["tenants", "root_keys"];

#[derive(Debug, Default, PartialEq, Eq)]
struct Schema {
    /// Table and column, with type and nullability.
    columns: BTreeMap<String, String>,
    /// Constraints and indexes by name, in one spelling.
    rules: BTreeMap<String, String>,
}

async fn read_schema(store: &Store) -> Schema {
    match store.kind() {
        "sqlite" => sqlite_schema(store).await,
        _ => postgres_schema(store).await,
    }
}

async fn sqlite_schema(store: &Store) -> Schema {
    let mut tx = store.read().await.unwrap();
    let mut schema = Schema::default();
    type Column = (String, String, String, i64);
    let columns = sql!(
        tx,
        all Column,
        "SELECT m.name, c.name, c.type, c.\"notnull\" FROM sqlite_master m JOIN pragma_table_info(m.name) c
         WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%' AND m.name <> '_sqlx_migrations'"
    );
    for (table, column, kind, not_null) in columns.unwrap() {
        let kind = match kind.as_str() {
            "TEXT" => "text",
            "INTEGER" => "bigint",
            "BLOB" => "bytea",
            other => panic!("{table}.{column} is {other}"),
        };
        schema.columns.insert(format!("{table}.{column}"), described(kind, not_null == 1));
    }
    let made = sql!(
        tx,
        all(String, String, String),
        "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite%' AND name <> '_sqlx_migrations'"
    );
    for (kind, name, text) in made.unwrap() {
        match kind.as_str() {
            "table" => {
                assert!(text.trim_end().ends_with("STRICT"), "{name} would take text where a number belongs");
                schema.rules.extend(constraints(&name, &text));
            }
            "index" => {
                schema.rules.insert(name, one_spelling(&text));
            }
            other => panic!("{name} is a {other}"),
        }
    }
    schema
}

async fn postgres_schema(store: &Store) -> Schema {
    let mut tx = store.read().await.unwrap();
    let mut schema = Schema::default();
    type Column = (String, String, String, bool);
    let columns = sql!(
        tx,
        all Column,
        "SELECT table_name::text, column_name::text, data_type::text, is_nullable = 'NO' FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name <> '_sqlx_migrations'"
    );
    for (table, column, kind, not_null) in columns.unwrap() {
        schema.columns.insert(format!("{table}.{column}"), described(&kind, not_null));
    }
    let constraints = sql!(
        tx,
        all(String, String),
        "SELECT conname::text, conrelid::regclass::text || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
         WHERE connamespace = 'public'::regnamespace AND conrelid <> '_sqlx_migrations'::regclass"
    );
    schema.rules.extend(constraints.unwrap().into_iter().map(|(name, text)| (name, one_spelling(&text))));
    let indexes = sql!(
        tx,
        all (String, String),
        "SELECT c.relname::text, pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
         WHERE c.relnamespace = 'public'::regnamespace AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u'))"
    );
    schema.rules.extend(indexes.unwrap().into_iter().map(|(name, text)| (name, one_spelling(&text))));
    schema
}

fn described(kind: &str, not_null: bool) -> String {
    format!("{kind}{}", if not_null { " not null" } else { "" })
}

/// The named constraints of an SQLite table, written as PostgreSQL prints them.
fn constraints(table: &str, text: &str) -> Vec<(String, String)> {
    let body = &text[text.find('(').expect("a body") + 1..text.rfind(')').expect("an end")];
    let mut found = vec![];
    for part in top_level_parts(body) {
        let mut pieces = part.split("CONSTRAINT ");
        let column = pieces.next().unwrap_or_default().split_whitespace().next().unwrap_or_default();
        for piece in pieces {
            let (name, rule) = piece.trim().split_once(' ').expect("a name");
            let rule = match rule.split_whitespace().next() {
                Some("REFERENCES") => format!("FOREIGN KEY ({column}) {rule}"),
                Some("PRIMARY" | "UNIQUE") if !rule.contains('(') => format!("{rule} ({column})"),
                _ => rule.to_owned(),
            };
            found.push((name.to_owned(), one_spelling(&format!("{table} {rule}"))));
        }
        let unnamed = ["PRIMARY KEY", "UNIQUE", "REFERENCES", "CHECK"].iter().any(|word| part.contains(word));
        assert!(!unnamed || part.contains("CONSTRAINT"), "a constraint of {table} has no name: {part}");
    }
    found
}

/// Splits at the commas that stand in no bracket.
fn top_level_parts(body: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for c in body.chars() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        match c {
            ',' if depth == 0 => parts.push(String::new()),
            _ => parts.last_mut().expect("one").push(c),
        }
    }
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// Words, names and texts in their order; brackets, casts and the two ways to write a list are left out.
fn one_spelling(text: &str) -> String {
    let mut tame = text.replace("::text", "").replace("public.", "").replace(" USING btree", "");
    for c in ['(', ')', ',', '[', ']', '='] {
        tame = tame.replace(c, " ");
    }
    let left_out = ["IN", "ANY", "ARRAY"];
    tame.split_whitespace().filter(|word| !left_out.contains(word)).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn both_databases_have_the_same_schema() {
    let seen = RefCell::new(vec![]);
    on_both(async |store: Store| {
        let schema = read_schema(&store).await;
        seen.borrow_mut().push(schema);
    })
    .await;
    let seen = seen.into_inner();
    assert!(seen[0].columns.len() > 200 && seen[0].rules.len() > 80, "the schema was not read whole");
    for other in &seen[1..] {
        let differ = |one: &BTreeMap<String, String>, two: &BTreeMap<String, String>| -> Vec<String> {
            let names: BTreeSet<_> = one.keys().chain(two.keys()).collect();
            let told = names.into_iter().filter(|name| one.get(*name) != two.get(*name));
            told.map(|name| format!("{name}: {:?} and {:?}", one.get(name), two.get(name))).collect()
        };
        assert_eq!(differ(&seen[0].columns, &other.columns), Vec::<String>::new());
        assert_eq!(differ(&seen[0].rules, &other.rules), Vec::<String>::new());
    }
}

#[tokio::test]
async fn migrating_twice_changes_nothing() {
    in_a_house(async |store| {
        let before = read_schema(&store).await;
        store.migrate().await.expect("once more");
        assert_eq!(read_schema(&store).await, before);
    })
    .await;
}

#[tokio::test]
async fn every_table_of_tenants_has_a_key_that_begins_with_the_tenant() {
    on_both(async |store: Store| {
        let schema = read_schema(&store).await;
        let tables: BTreeSet<&str> = schema.columns.keys().filter_map(|name| name.split('.').next()).collect();
        for table in tables {
            let has_tenant = schema.columns.contains_key(&format!("{table}.tenant_id"));
            let excused = WITHOUT_TENANT.iter().any(|(name, _)| *name == table);
            assert_ne!(has_tenant, excused, "{table}: give it a tenant or say why it has none");
            if !has_tenant || OTHER_KEY.iter().any(|(name, _)| *name == table) {
                continue;
            }
            let key = &schema.rules[&format!("{table}_pkey")];
            assert!(key.starts_with(&format!("{table} PRIMARY KEY tenant_id ")), "{key}");
            assert_eq!(schema.columns[&format!("{table}.tenant_id")], "text not null");
        }
    })
    .await;
}

#[tokio::test]
async fn every_reference_to_a_table_of_tenants_names_the_tenant() {
    on_both(async |store: Store| {
        let schema = read_schema(&store).await;
        let mut number = 0;
        for (name, rule) in &schema.rules {
            let Some((from, to)) = rule.split_once(" REFERENCES ") else { continue };
            let Some((_, own)) = from.split_once(" FOREIGN KEY ") else { panic!("{name}: {rule}") };
            let (target, columns) = to.split_once(' ').expect("a table and its columns");
            number += 1;
            if !REFERENCED_WITHOUT_TENANT.contains(&target) {
                assert_eq!(columns, "tenant_id id", "{name}");
                assert!(own.split(' ').next().is_some_and(|first| first.ends_with("tenant_id")), "{name}: {own}");
            }
        }
        assert!(number > 25, "references were not read: {number}");
    })
    .await;
}
