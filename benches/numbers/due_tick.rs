//! One round of the sweep and the count of what is due, on tables of 10⁴, 10⁵ and 10⁶ credentials. Nothing may leave, so that
//! every row that is taken is written twice: by the claim, and with its place in the queue, which is all that a round does
//! in the database.

use valetkey::accounts::NewTenant;
use valetkey::app::{App, OpenApp};
use valetkey::clock::{Clock, Stopwatch, Surroundings, SystemClock};
use valetkey::config::{Config, HiddenText, RefreshSettings};
use valetkey::secret::Secret;

use crate::figures::{Spans, Table};
use crate::stage::{Database, Kind, ROOT_KEY};

/// OAuth clients, of which the first has half of all credentials.
const CLIENTS: usize = 101;
/// Due in one tick.
const BATCH: usize = 100;

struct House {
    database: Database,
    app: OpenApp,
    tenants: Vec<String>,
    rows: usize,
    ticks: usize,
}

pub async fn run(full: bool, table: &mut Table) {
    // Of 300, three are slower than the 99th percentile; of fewer than a hundred it would be the slowest.
    let (sizes, overdue, ticks) =
        if full { (&[10_000, 100_000, 1_000_000][..], 120_000, 300) } else { (&[300, 600][..], 250, 3) };
    for kind in Kind::BOTH {
        let Some(mut house) = House::build(kind, ticks).await else { continue };
        let mut medians = Vec::new();
        for size in sizes {
            house.grow(*size).await;
            table.head(&format!("a due tick with {size} credentials on {}: median / p99 / slowest", kind.name()));
            medians.push(house.tick(table).await);
        }
        for (case, name) in ["nothing due", "one client", "many clients", "the numbers"].iter().enumerate() {
            let growth = medians[medians.len() - 1][case] / medians[0][case];
            // What takes a fraction of a millisecond is mostly the way to the database and back.
            table.at_most(&format!("growth of the median from the first size to the last: {name}"), growth, 2.0, "×");
        }
        table.head(&format!("{overdue} overdue at once on {}: median / p99 / slowest", kind.name()));
        house.crowd(overdue, table).await;
        house.end().await;
    }
}

impl House {
    async fn build(kind: Kind, ticks: usize) -> Option<Self> {
        let database = Database::new(kind).await?;
        let config = Config {
            database_url: HiddenText(Secret::new(&*database.url)),
            root_key: Some(HiddenText(Secret::new(ROOT_KEY))),
            // Nothing may be in the air: places are given, and nobody leaves.
            refresh: RefreshSettings { rate_per_client: 200, in_air_per_client: 0, ..RefreshSettings::default() },
            ..Config::default()
        };
        let app = App::open_for_cli(&config, Surroundings::system()).await.expect("opens");
        let mut tenants = Vec::new();
        for number in 0..CLIENTS {
            let new =
                NewTenant { name: format!("t-{number}"), environment: Some("test".into()), ..NewTenant::default() };
            tenants.push(app.rooms.accounts.tenant_create(new).await.expect("a tenant").id.to_string());
        }
        let now = SystemClock.now().0;
        let rows: Vec<String> = (0..CLIENTS)
            .map(|number| {
                format!(
                    "('{}', 'int_{number:03}', 'google', 'client-1', '{number}', '[]', '[]', '{{}}', 'active', 'always', 30, 0, 0, 0, 0, 1, {now}, {now})",
                    tenants[number]
                )
            })
            .collect();
        database
            .execute(&format!(
                "INSERT INTO integrations (tenant_id, id, provider, client_id, client, scopes, user_scopes, variables, status, refresh_policy, active_days, pace_at,
                 retry_credit, unanswered, refused, revision, created_at, updated_at) VALUES {}",
                rows.join(", ")
            ))
            .await;
        Some(Self { database, app, tenants, rows: 0, ticks })
    }

    /// As many credentials as that, with sealed values of usual sizes, due in the next two hours but for the first minute.
    async fn grow(&mut self, size: usize) {
        let now = SystemClock.now().0;
        let (from, to) = (self.rows, size - 1);
        let (numbers, id, client, blobs) = match self.database.kind() {
            Kind::Sqlite => (
                format!(
                    "(WITH RECURSIVE s(n) AS (SELECT {from} UNION ALL SELECT n + 1 FROM s WHERE n < {to}) SELECT n, CASE WHEN n % 2 = 0 THEN 0 ELSE n / 2 % 100 + 1 END AS c FROM s)"
                ),
                "printf('crd_%026d', n)",
                "printf('int_%03d', c)",
                ["randomblob(520)", "randomblob(330)"],
            ),
            Kind::Postgres => (
                format!(
                    "(SELECT n, CASE WHEN n % 2 = 0 THEN 0 ELSE n / 2 % 100 + 1 END AS c FROM generate_series({from}::bigint, {to}::bigint) n)"
                ),
                "'crd_' || lpad(n::text, 26, '0')",
                "'int_' || lpad(c::text, 3, '0')",
                ["decode(repeat(md5(n::text), 32) || '0011', 'hex')", "decode(repeat(md5(n::text), 20), 'hex')"],
            ),
        };
        let tenant = (0..CLIENTS).map(|c| format!("WHEN {c} THEN '{}'", self.tenants[c])).collect::<Vec<_>>().join(" ");
        self.database
            .execute(&format!(
                "INSERT INTO credentials (tenant_id, id, integration_id, provider, kind, owner_kind, owner_id, access_token, refresh_token, token_type,
                 scopes, obtained_at, expires_at, generation, fence, consents, phase, doubt_replays, doubt_likely_unspent, due_at, status, attempts, unrecognised_count,
                 unrecognised_since, last_used_at, created_at)
                 SELECT CASE c {tenant} END, {id}, {client}, 'google', 'user', 'user', 'usr_' || n, {}, {}, 'Bearer',
                 '[\"openid\",\"email\",\"https://www.googleapis.com/auth/gmail.readonly\"]', {now}, {now} + 7200000, 1, 0, 1, 'idle', 0, 0,
                 {now} + 1800000 + n * 7919 % 5400000, 'active', 0, 0, 0, {now} - 86400000, {now} FROM {numbers} AS numbers",
                blobs[0], blobs[1]
            ))
            .await;
        self.rows = size;
        self.database.settle().await;
    }

    /// Every case at this size; gives the medians.
    async fn tick(&self, table: &mut Table) -> [f64; 4] {
        self.put_back().await;
        let mut idle = Spans::default();
        for _ in 0..self.ticks {
            idle.add(self.sweep(0).await);
        }
        let (mut one, mut many, mut numbers) = (Spans::default(), Spans::default(), Spans::default());
        let mut disk = Spans::default();
        for tick in 0..self.ticks {
            if self.database.kind() == Kind::Sqlite {
                disk.add(self.database.sync_of_disk());
            }
            self.make_due(tick, false).await;
            one.add(self.sweep(BATCH).await);
            self.make_due(tick, true).await;
            many.add(self.sweep(BATCH).await);
            numbers.add(self.numbers().await);
        }
        show(table, "nothing due", &idle);
        show(table, &format!("{BATCH} due, of one client"), &one);
        show(table, &format!("{BATCH} due, of {} clients", CLIENTS - 1), &many);
        show(table, "counting what is due, queued and in doubt", &numbers);
        if disk.count() > 0 {
            table.row("for comparison, 4 KiB synced by this disk", disk.shown());
        }
        [idle.median(), one.median(), many.median(), numbers.median()]
    }

    async fn crowd(&self, overdue: usize, table: &mut Table) {
        let now = SystemClock.now().0;
        // Of one client: places of a hundred would come around again while they are being given.
        let condition = format!("integration_id = 'int_000' AND id < 'crd_{:026}'", 2 * overdue);
        self.database
            .execute(&format!("UPDATE credentials SET due_at = {now} - 60000, slot_at = NULL WHERE {condition}"))
            .await;
        self.database.settle().await;
        let mut numbers = Spans::default();
        for _ in 0..self.ticks {
            numbers.add(self.numbers().await);
        }
        let (mut rounds, mut taken, watch) = (Spans::default(), 0, Stopwatch::start());
        loop {
            let one = Stopwatch::start();
            let swept = self.app.rooms.credentials.sweep_round().await.expect("sweeps");
            rounds.add(one.elapsed());
            taken += swept.looked_at;
            if !swept.more {
                break;
            }
        }
        let took = watch.elapsed();
        let counted = self.app.rooms.credentials.refresh_numbers().await.expect("counts");
        assert!(counted.queued > 0, "{counted:?}");
        show(table, "a round, which gives up to 125 their places", &rounds);
        let places = format!("{} rounds, {:.1} s, {taken} taken one by one", rounds.count(), took.as_secs_f64());
        table.row("until everybody has a place", places);
        // Nobody waits for the counting; it takes what so many index entries take.
        table.row("counting while they are overdue", numbers.shown());
        let mut queued = Spans::default();
        for _ in 0..self.ticks {
            queued.add(self.numbers().await);
        }
        table.row("counting while they are queued", queued.shown());
    }

    /// One tick, in which so many are due: they are taken one by one, or, those of one client beyond a round, given their
    /// places at once.
    async fn sweep(&self, wanted: usize) -> std::time::Duration {
        let watch = Stopwatch::start();
        let looked_at = self.app.rooms.credentials.sweep().await.expect("sweeps");
        let took = watch.elapsed();
        assert!((wanted.min(64)..=wanted).contains(&looked_at), "{looked_at} of {wanted}");
        took
    }

    async fn numbers(&self) -> std::time::Duration {
        let watch = Stopwatch::start();
        self.app.rooms.credentials.refresh_numbers().await.expect("counts");
        watch.elapsed()
    }

    /// A batch from all over the table is due now; what the tick before has queued goes back to where it was.
    async fn make_due(&self, tick: usize, many: bool) {
        let now = SystemClock.now().0;
        let stride = self.rows / BATCH / 2 * 2;
        // Even numbers belong to the first client, odd ones to each of the others in turn.
        let place = |n: usize| {
            let base = (n * stride + tick * 2) % (self.rows / 200 * 200);
            if many { base / 200 * 200 + 2 * n + 1 } else { base }
        };
        let ids: std::collections::BTreeSet<usize> = (0..BATCH).map(place).collect();
        assert_eq!(ids.len(), BATCH);
        let ids: Vec<String> = ids.into_iter().map(|n| format!("'crd_{n:026}'")).collect();
        self.put_back().await;
        let sql = format!("UPDATE credentials SET due_at = {now} - 1000 WHERE id IN ({})", ids.join(", "));
        // The primary key begins with the tenant; PostgreSQL's planner has nothing else to find an id by.
        let tenants: Vec<String> = self.tenants.iter().map(|tenant| format!("'{tenant}'")).collect();
        self.database.execute(&format!("{sql} AND tenant_id IN ({})", tenants.join(", "))).await;
    }

    /// Takes out of the queue whoever has been put into it.
    async fn put_back(&self) {
        let later = SystemClock.now().0 + 3_600_000;
        let sql = format!("UPDATE credentials SET due_at = {later}, slot_at = NULL WHERE slot_at IS NOT NULL");
        self.database.execute(&sql).await;
    }

    async fn end(self) {
        self.app.close().await;
        self.database.drop_database().await;
    }
}

fn show(table: &mut Table, what: &str, spans: &Spans) {
    table.row(what, spans.shown());
    table.at_most(&format!("{what}: p99"), spans.p99(), 50.0, " ms");
}
