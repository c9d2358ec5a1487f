//! Every crash point, and dying at one.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

/// Declares the points: what is true when a process dies there, the name in the settings, and the file that it is in.
macro_rules! points {
    ($($(#[doc = $meaning:literal])+ $point:ident = $name:literal in $file:literal;)+) => {
        /// A place in the program at which it can be made to die.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Point {
            $($(#[doc = $meaning])+ $point,)+
        }

        impl Point {
            /// Every point there is, in the order in which a refresh passes them.
            pub const ALL: &'static [Self] = &[$(Self::$point),+];

            /// Its name in the settings.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$point => $name),+ }
            }

            /// The file that it stands in, below `src/`.
            #[must_use]
            pub const fn file(self) -> &'static str {
                match self { $(Self::$point => $file),+ }
            }
        }
    };
}

points! {
    /// A refresh is decided on; nothing is written.
    BeforeIntent = "before_intent" in "credentials/driver.rs";
    /// The claim's statements are done, its commit is not sent. On PostgreSQL a claim without a probe commits by itself: as below.
    MidIntent = "mid_intent" in "credentials/driver.rs";
    /// The claim is durable.
    AfterIntent = "after_intent" in "credentials/driver.rs";
    /// Everything is opened, not a byte has left.
    BeforeSend = "before_send" in "credentials/provider_call.rs";
    /// The connection to a provider that rotates stands, and the token waits.
    BeforeAnnounce = "before_announce" in "credentials/driver.rs";
    /// The statement that it leaves is done, its commit is not sent.
    MidAnnounce = "mid_announce" in "credentials/driver.rs";
    /// That it leaves is durable: from here on nobody can know whether the token was spent.
    AfterAnnounce = "after_announce" in "credentials/driver.rs";
    /// The provider has done its part and begun to answer; the answer is not read. Counts every outgoing call.
    AfterSend = "after_send" in "outbound/call.rs";
    /// The lease of a slow answer is about to be renewed.
    BeforeRenewal = "before_renewal" in "credentials/driver.rs";
    /// The lease of a slow answer is renewed.
    AfterRenewal = "after_renewal" in "credentials/driver.rs";
    /// The new tokens are in memory and nowhere else.
    AfterResponse = "after_response" in "credentials/provider_call.rs";
    /// The statements that store them are done, their commit is not sent.
    MidStore = "mid_store" in "credentials/driver/storing.rs";
    /// The new tokens are durable, nobody has been told.
    AfterStore = "after_store" in "credentials/driver/storing.rs";
    /// A failure, or that only the user can help, is about to be written.
    BeforeRecord = "before_record" in "credentials/driver/recording.rs";
    /// Its statements are done, their commit is not sent.
    MidRecord = "mid_record" in "credentials/driver/recording.rs";
    /// It is durable.
    AfterRecord = "after_record" in "credentials/driver/recording.rs";
    /// The flight is over and everybody who waited for it is told.
    AfterLanding = "after_landing" in "credentials/driver.rs";
    /// The hand-out of a token is in the book, the answer has not left.
    BeforeReply = "before_reply" in "credentials/read.rs";
    /// An answer that the database does not take is about to be written to the spool, as a copy of what is held.
    BeforeSpool = "before_spool" in "credentials/spool.rs";
    /// It is written beside its name. Counts the trial at the start.
    MidSpool = "mid_spool" in "credentials/spool.rs";
    /// It has its name, and the folder is synced.
    AfterSpool = "after_spool" in "credentials/spool.rs";
    /// The database has taken a held answer after all; its copy in the spool is still there.
    BeforeTakeAway = "before_take_away" in "credentials/spool.rs";
    /// A spooled answer is opened and about to be stored.
    BeforeHomecoming = "before_homecoming" in "credentials/driver.rs";
    /// It is stored; its file is still there.
    AfterHomecoming = "after_homecoming" in "credentials/spool.rs";
}

/// Where to die, and the how-manieth time there: `after_intent:1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Aim {
    /// Where.
    pub point: Point,
    /// At which pass, from 1.
    pub hit: u32,
}

/// The text names no point, or no pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a crash point is NAME:HIT, such as after_intent:1")]
pub struct AimError;

impl FromStr for Aim {
    type Err = AimError;

    fn from_str(text: &str) -> Result<Self, AimError> {
        let (name, hit) = text.split_once(':').ok_or(AimError)?;
        let point = Point::ALL.iter().copied().find(|point| point.name() == name).ok_or(AimError)?;
        let hit = hit.parse().ok().filter(|hit| *hit > 0).ok_or(AimError)?;
        Ok(Self { point, hit })
    }
}

impl TryFrom<String> for Aim {
    type Error = AimError;

    fn try_from(text: String) -> Result<Self, AimError> {
        text.parse()
    }
}

impl From<Aim> for String {
    fn from(aim: Aim) -> Self {
        aim.to_string()
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.point.name(), self.hit)
    }
}

/// One per process, as dying is.
static AIM: OnceLock<Aim> = OnceLock::new();
static HITS: AtomicU32 = AtomicU32::new(0);

/// From now on the process dies there. The first aim of a process counts.
pub fn aim(at: Option<Aim>) {
    if let Some(at) = at {
        let _ = AIM.set(at);
    }
}

/// Passes a point, or dies at it. Call it by `crash_point!`.
pub fn reach(point: Point) {
    let Some(aim) = AIM.get().filter(|aim| aim.point == point) else { return };
    if HITS.fetch_add(1, Ordering::SeqCst) + 1 == aim.hit {
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for entry in std::fs::read_dir(folder).expect("listed") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path.strip_prefix(&root).expect("below src").display().to_string();
                found.push((name, std::fs::read_to_string(&path).expect("read")));
            }
        }
    }

    #[test]
    fn every_point_stands_exactly_once_and_where_the_table_says() {
        let mut all = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
        for point in Point::ALL {
            let call = format!("crash_point!({point:?});");
            let at: Vec<&str> = all
                .iter()
                .filter(|(file, _)| file != "crash.rs")
                .flat_map(|(file, text)| text.matches(&call).map(|_| file.as_str()))
                .collect();
            assert_eq!(at, [point.file()], "{}", point.name());
        }
    }

    #[test]
    fn an_aim_is_a_name_and_a_pass() {
        for point in Point::ALL {
            let aim = Aim { point: *point, hit: 2 };
            assert_eq!(aim.to_string().parse(), Ok(aim));
        }
        for wrong in ["", "after_intent", "after_intent:", "after_intent:0", "after_intent:x", "nowhere:1"] {
            assert_eq!(wrong.parse::<Aim>(), Err(AimError), "{wrong}");
        }
    }
}
