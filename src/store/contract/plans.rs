//! How the databases carry out what the sweep asks once a second: by an index, never by walking over every credential.
//!
//! The texts are those that the product's functions run ([`statements_of`]). PostgreSQL is asked on a table that is large
//! enough for its planner to have a choice, with nothing switched off but what the product itself switches off; SQLite chooses
//! without looking at sizes.

use sqlx::{AssertSqlSafe, Row};

use super::*;
use crate::store::Connection;
use crate::store::due::{
    Queue, Share, credential_claim_due, credential_patient, credentials_in_air, credentials_put_back,
    credentials_queue_up, refresh_numbers,
};
use crate::store::testing::statements_of;

const CLIENT: (&str, &str) = (A, "int_ten_a");
/// So many that PostgreSQL would rather not read them all.
const MANY: usize = 20_000;

/// What a statement's arguments are when its plan is asked for.
enum Argument {
    Text(&'static str),
    Number(i64),
}
use Argument::{Number, Text};

/// Credentials as a busy vault has them: nearly all due within the next hour, a few now, a few queued, sent or in doubt.
async fn fill(store: &Store) {
    let (numbers, id) = match store {
        Store::Sqlite { .. } => (
            "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {MANY}) SELECT n FROM s) AS s",
            "printf('crd_%08d', n)",
        ),
        Store::Postgres(_) => {
            ("(SELECT n::bigint FROM generate_series(1, {MANY}) n) AS s", "'crd_' || lpad(n::text, 8, '0')")
        }
    };
    // A fifth is the client's of whom the stories are, so that its own indexes are worth more than those over all tenants.
    let owner = format!("CASE WHEN n % 10 IN (1, 9) THEN '{A}' ELSE '{B}' END");
    let numbers = numbers.replace("{MANY}", &MANY.to_string());
    run(
        store,
        &format!(
            "INSERT INTO credentials (tenant_id, id, integration_id, provider, kind, owner_kind, owner_id, token_type, scopes, obtained_at, expires_at,
             generation, fence, consents, phase, lease_until, doubt_replays, doubt_likely_unspent, doubt_since, due_at, slot_at, status, attempts, unrecognised_count,
             unrecognised_since, last_used_at, created_at)
             SELECT {owner}, {id}, 'int_' || {owner}, 'google', 'user', 'user', '{USER}', 'Bearer', '[]', {NOW}, {NOW} + 3600000, 1, 0, 1,
             CASE WHEN n % 1000 = 7 THEN 'sent' ELSE 'idle' END, CASE WHEN n % 1000 = 7 THEN {NOW} - n END, 0, 0, CASE WHEN n % 1000 = 8 THEN {NOW} END,
             {NOW} - 1000 + n * 180, CASE WHEN n % 100 = 9 THEN {NOW} - 1000 + n * 180 END, 'active', 0, 0, 0, {NOW}, {NOW} FROM {numbers}"
        ),
    )
    .await;
    run(store, "ANALYZE").await;
}

async fn run(store: &Store, sql: &str) {
    let mut tx = store.begin().await.unwrap();
    match tx.connection() {
        Connection::Sqlite(connection) => drop(sqlx::query(AssertSqlSafe(sql)).execute(connection).await.unwrap()),
        Connection::Postgres(connection) => drop(sqlx::query(AssertSqlSafe(sql)).execute(connection).await.unwrap()),
    }
    tx.commit().await.unwrap();
}

/// The plan of a statement, line by line.
async fn plan_of(tx: &mut Tx, statement: &'static str, arguments: &[Argument]) -> String {
    let lines: Vec<String> = match tx.connection() {
        Connection::Sqlite(connection) => {
            let mut asked = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")));
            for argument in arguments {
                asked = match argument {
                    Text(text) => asked.bind(*text),
                    Number(number) => asked.bind(*number),
                };
            }
            let rows = asked.fetch_all(connection).await.unwrap();
            rows.iter().map(|row| row.get::<String, _>("detail")).collect()
        }
        Connection::Postgres(connection) => {
            let values: Vec<String> = arguments
                .iter()
                .map(|argument| match argument {
                    Text(text) => format!("'{text}'"),
                    Number(number) => number.to_string(),
                })
                .collect();
            let types: Vec<&str> = arguments
                .iter()
                .map(|argument| match argument {
                    Text(_) => "text",
                    Number(_) => "bigint",
                })
                .collect();
            let prepare = format!("PREPARE asked ({}) AS {statement}", types.join(", "));
            sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut *connection).await.unwrap();
            let explain = format!("EXPLAIN EXECUTE asked({})", values.join(", "));
            let mut rows = Vec::new();
            // The product's statements are prepared, too: after five runs PostgreSQL may choose a plan for any arguments.
            for _ in 0..7 {
                rows = sqlx::raw_sql(AssertSqlSafe(&*explain)).fetch_all(&mut *connection).await.unwrap();
            }
            sqlx::raw_sql("DEALLOCATE asked").execute(&mut *connection).await.unwrap();
            rows.iter().map(|row| row.get::<String, _>(0)).collect()
        }
    };
    lines.join("\n")
}

/// What is wrong with a plan: an index that it does not use, or a walk over the table.
fn fault(plan: &str, indexes: &[&str]) -> Option<String> {
    // An index may be walked from its beginning (`SCAN … USING INDEX`) where the statement wants all that it holds.
    let walks = |line: &&str| line.contains("Seq Scan on credentials") || line.trim() == "SCAN credentials";
    let unused = indexes.iter().find(|index| !plan.contains(**index)).map(|index| format!("{index} is not used"));
    let bitmap = plan.lines().find(|line| line.contains("Bitmap")).map(|line| format!("it reads what is dead: {line}"));
    unused.or(bitmap).or_else(|| plan.lines().find(walks).map(|line| format!("it walks over the table: {line}")))
}

/// Asserts that the one statement of `work` uses these indexes and walks over no table of credentials.
async fn assert_uses(store: &Store, indexes: &[&str], arguments: &[Argument], work: impl AsyncFnOnce(&mut Tx)) {
    let mut tx = store.begin().await.unwrap();
    let statements = statements_of(work(&mut tx)).await;
    assert_eq!(statements.len(), 1, "{statements:?}");
    let plan = plan_of(&mut tx, statements[0], arguments).await;
    tx.roll_back().await.unwrap();
    assert_eq!(fault(&plan, indexes), None, "{plan}");
}

const DUE: [Argument; 7] = [
    Number(NOW + 1000),
    Number(NOW + 150_000),
    Number(128),
    Number(NOW),
    Number(NOW - 60_000),
    Number(96),
    Number(128),
];

async fn claim(tx: &mut Tx) {
    let rows =
        credential_claim_due(tx, TEST, (NOW, NOW + 1000), NOW + 150_000, Share { limit: 128, first: 128, others: 128 })
            .await
            .unwrap();
    assert!(!rows.is_empty());
}

#[tokio::test]
async fn a_plan_without_its_index_is_noticed() {
    in_a_house(async |store| {
        fill(&store).await;
        // SQLite would make do with the other one by trying every client in turn.
        for index in ["credentials_due_idx", "credentials_integration_due_idx"] {
            run(&store, &format!("DROP INDEX {index}")).await;
        }
        let mut tx = store.begin().await.unwrap();
        let statements = statements_of(claim(&mut tx)).await;
        let plan = plan_of(&mut tx, statements[0], &DUE).await;
        assert_eq!(
            fault(&plan, &["credentials_due_idx"]).as_deref(),
            Some("credentials_due_idx is not used"),
            "{plan}"
        );
        assert!(fault(&plan, &[]).is_some_and(|fault| fault.starts_with("it walks over the table")), "{plan}");
    })
    .await;
}

#[tokio::test]
async fn what_the_sweep_asks_every_second_is_answered_by_indexes() {
    // Issue 3, evidence 5: "the query plan's index is tested".
    in_a_house(async |store| {
        fill(&store).await;
        assert_uses(&store, &["credentials_due_idx", "credentials_urgent_idx"], &DUE, claim).await;
        let back = [Text(
            r#"[{"tenant_id":"ten_a","id":"crd_00000001","claimed":1800000000001,"due_at":1800000000002,"queued":true}]"#,
        )];
        // Not by its due time, which is that of all who were claimed with it.
        let key = if matches!(store, Store::Postgres(_)) { "credentials_pkey" } else { "(tenant_id=? AND id=?)" };
        assert_uses(&store, &[key], &back, async |tx| {
            credentials_put_back(tx, TEST, &put_back("crd_00000001", NOW + 1, NOW + 2, true)).await.unwrap();
        })
        .await;
        let queue = Queue { now: NOW + 1000, pace_at: NOW * 1000, interval: 5100, active_since: NOW, limit: 2000 };
        let places = [
            Text(CLIENT.0),
            Text(CLIENT.1),
            Number(queue.now),
            Number(queue.limit),
            Number(queue.pace_at),
            Number(queue.interval),
            Number(queue.active_since),
        ];
        assert_uses(&store, &["credentials_integration_due_idx"], &places, async |tx| {
            assert!(credentials_queue_up(tx, TEST, CLIENT, queue).await.unwrap() > 0);
        })
        .await;
        let air = [Text(r#"[["ten_a","int_ten_a"]]"#), Number(NOW), Number(NOW + 1000), Number(NOW - 5000)];
        assert_uses(&store, &["credentials_slot_idx", "credentials_claimed_idx"], &air, async |tx| {
            credentials_in_air(tx, TEST, &[CLIENT], (NOW, NOW + 1000)).await.unwrap();
        })
        .await;
        let patient = [Text(CLIENT.0), Text(CLIENT.1), Number(NOW + 1000), Number(NOW), Number(200)];
        assert_uses(&store, &["credentials_slot_idx"], &patient, async |tx| {
            assert!(credential_patient(tx, TEST, CLIENT, NOW + 1000, NOW).await.unwrap().is_some());
        })
        .await;
        let indexes = ["credentials_due_idx", "credentials_slot_idx", "credentials_urgent_idx"];
        assert_uses(&store, &indexes, &[Number(NOW), Number(10_000)], async |tx| {
            let numbers = refresh_numbers(tx, TEST, NOW).await.unwrap();
            assert!(numbers.overdue > 0 && numbers.queued > 0 && numbers.in_doubt > 0, "{numbers:?}");
        })
        .await;
    })
    .await;
}
