//! The long run: as many seeds as one likes, on all cores.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::plan::Plan;
use super::tally::{Deed, Tally};
use super::world::{Broken, World};
use crate::clock::Stopwatch;

/// Seeds that a thread takes at once.
const CHUNK: u64 = 500;

/// A failing seed in one line, with how to play it again.
pub(super) fn told(seed: u64, broken: &Broken) -> String {
    let Broken { rule, story } = broken;
    format!(
        "seed {seed} breaks {rule} (again with: VK_SIMULATION_SEEDS={seed}..{} cargo test simulation::long -- --nocapture): {story}",
        seed + 1
    )
}

fn wanted() -> Option<Range<u64>> {
    #[expect(clippy::disallowed_methods, reason = "a test's own setting; no configuration of the house")]
    let text = std::env::var("VK_SIMULATION_SEEDS").ok().filter(|text| !text.is_empty())?;
    let (from, to) = text.split_once("..").expect("VK_SIMULATION_SEEDS is a range such as 0..1000");
    Some(from.parse().expect("a number")..to.parse().expect("a number"))
}

/// What the threads share.
struct Course {
    seeds: Range<u64>,
    next: AtomicU64,
    played: AtomicU64,
    /// Nobody plays seeds beyond the first that failed.
    first_failed: AtomicU64,
    failures: Mutex<Vec<(u64, Broken)>>,
    tally: Mutex<Tally>,
    watch: Stopwatch,
}

impl Course {
    fn run(&self) {
        loop {
            let from = self.next.fetch_add(CHUNK, Ordering::Relaxed);
            let to = (from + CHUNK).min(self.seeds.end);
            if from >= to || from > self.first_failed.load(Ordering::Relaxed) {
                return;
            }
            let mut tally = Tally::default();
            for seed in from..to {
                let mut world = World::new(Plan::of(seed));
                world.aloud = self.seeds.end - self.seeds.start == 1;
                world.play();
                tally.add(world.tally());
                if let Some(broken) = world.broken() {
                    self.first_failed.fetch_min(seed, Ordering::Relaxed);
                    self.failures.lock().unwrap().push((seed, broken.clone()));
                }
            }
            self.tally.lock().unwrap().add(&tally);
            self.progress(to - from);
        }
    }

    fn progress(&self, more: u64) {
        let total = self.seeds.end - self.seeds.start;
        let before = self.played.fetch_add(more, Ordering::Relaxed);
        let tenth = |played: u64| played * 10 / total;
        if total >= 10_000 && tenth(before) != tenth(before + more) {
            let seconds = self.watch.elapsed().as_secs_f64();
            #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
            let rate = (before + more) as f64 / seconds;
            println!("{:>10} seeds after {seconds:.0} s, {rate:.0} a second", before + more);
        }
    }
}

#[test]
fn rl_42_the_long_run_plays_the_seeds_that_it_is_told() {
    let Some(seeds) = wanted() else {
        println!("VK_SIMULATION_SEEDS is not set: scripts/evidence simulation plays a million");
        return;
    };
    let course = Course {
        next: AtomicU64::new(seeds.start),
        seeds,
        played: AtomicU64::new(0),
        first_failed: AtomicU64::new(u64::MAX),
        failures: Mutex::default(),
        tally: Mutex::default(),
        watch: Stopwatch::start(),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| course.run());
        }
    });
    let (tally, played) = (course.tally.into_inner().unwrap(), course.played.into_inner());
    let mut failures = course.failures.into_inner().unwrap();
    failures.sort_by_key(|(seed, _)| *seed);
    println!("{tally}");
    let seconds = course.watch.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = played as f64 / seconds;
    println!(
        "{played} seeds, {} steps, {seconds:.1} s, {rate:.0} seeds a second on {threads} threads",
        tally.of(Deed::Step)
    );
    // Seeds of the same chunk were played on: other ways to fail are worth a line.
    for (seed, Broken { rule, story }) in failures.iter().take(20) {
        println!("seed {seed}: {rule}: {}", story.split(';').next().unwrap_or_default());
    }
    if let Some((seed, broken)) = failures.first() {
        println!("caught by {} after {} seeds", broken.rule, seed - course.seeds.start + 1);
        panic!("{}", told(*seed, broken));
    }
    println!("0 violations");
}
