//! Trouble of a provider that takes every refresh token once: an outage or a bad day must not cost connections whose tokens
//! were never spent (RL-06, RL-08, RL-14; provider facts, D.4).

use std::time::Duration;

use valetkey::clock::{Clock, Entropy, SeededEntropy};

use crate::crowds::{Crowd, figure, size};
use crate::harness::Answer;

const HOUR: u64 = 3600;

#[tokio::test]
async fn rl_14_an_hour_without_a_rotating_provider_costs_no_connection() {
    // A server's error leaves a doubt of two minutes; a broken line one of seven, since somebody may hold an answer.
    for (answer, patience) in [(Answer::BadGateway(502), 120), (Answer::Cut, 420)] {
        let crowd = Crowd::gather_rotating(size(200, 2000), HOUR).await;
        let count = crowd.ids.len();
        crowd.pass(Duration::from_secs(45 * 60), Duration::from_secs(60)).await;
        let healthy = crowd.endpoint.count();
        let always = answer.clone();
        crowd.endpoint.answer(move |_, _| always.clone());
        crowd.pass(Duration::from_secs(HOUR), Duration::from_secs(10)).await;
        let down = crowd.endpoint.count() - healthy;
        assert_eq!(crowd.statuses().await, crowd.all_active(), "{answer:?}");
        crowd.endpoint.answer(|_, _| Answer::Fresh);
        let back = crowd.app.clock.now();
        let mut until_fresh = Duration::ZERO;
        while crowd.dead().await > 0 {
            crowd.pass(Duration::from_secs(2), Duration::from_secs(1)).await;
            until_fresh = crowd.app.clock.now().left(back);
            assert!(until_fresh < Duration::from_secs(35 + patience + count as u64 / 40), "{until_fresh:?}");
        }
        let total = crowd.endpoint.count() - healthy;
        figure(
            "an hour of a rotating provider's trouble: answer, calls while down, all calls until fresh, credentials, seconds",
            format!("{answer:?}, {down}, {total}, {count}, {}", until_fresh.as_secs()),
        );
        assert!(down as f64 <= 1.1 * count as f64, "{down} of {count}");
        assert!(total as f64 <= 1.1 * 2.0 * count as f64, "{total} of {count}");
        crowd.pass(Duration::from_secs(HOUR), Duration::from_secs(30)).await;
        assert_eq!((crowd.dead().await, crowd.statuses().await), (0, crowd.all_active()), "{answer:?}");
        crowd.app.finish().await;
    }
}

#[tokio::test]
async fn rl_08_thirty_percent_of_a_rotating_providers_servers_fail_and_no_connection_is_lost() {
    let mut totals = Vec::new();
    for bad in [false, true] {
        let crowd = Crowd::gather_rotating(size(200, 2000), HOUR).await;
        let dice = SeededEntropy::new(30);
        crowd.endpoint.answer(move |_, _| {
            let mut roll = [0u8; 1];
            dice.fill(&mut roll);
            if bad && roll[0] < 77 { Answer::BadGateway(500) } else { Answer::Fresh }
        });
        crowd.pass(Duration::from_secs(2 * HOUR), Duration::from_secs(30)).await;
        totals.push(crowd.endpoint.count());
        assert_eq!(crowd.statuses().await, crowd.all_active());
        crowd.endpoint.answer(|_, _| Answer::Fresh);
        crowd.pass(Duration::from_secs(25 * 60), Duration::from_secs(15)).await;
        assert_eq!(crowd.dead().await, 0, "fresh within 25 minutes of the last error, without anybody asking");
        assert_eq!(crowd.statuses().await, crowd.all_active());
        crowd.app.finish().await;
    }
    let ratio = totals[1] as f64 / totals[0] as f64;
    figure(
        "30 % errors of a rotating provider for two hours: calls, ratio (bar 1.1)",
        format!("{totals:?}, {ratio:.3}"),
    );
    assert!(ratio <= 1.1, "{totals:?}");
}
