//! What is played: where the process dies, in which situation, and how it may end.

use valetkey::crash::Point;

/// How the provider treats a refresh token that comes twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It does not rotate: Google.
    Lasting,
    /// It rotates, and the old one works for another minute: Slack.
    Grace,
    /// It rotates, and whoever shows the old one ends the family.
    Strict,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Lasting, Self::Grace, Self::Strict];

    pub fn provider(self) -> &'static str {
        if self == Self::Lasting { "google" } else { "slack" }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Lasting => "non-rotating",
            Self::Grace => "grace",
            Self::Strict => "strict",
        }
    }
}

/// How the stored access token stands when the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Minutes are left, less than readers wish: the sweep and every reader want a new one.
    Waning,
    /// Hours are left: only a forced refresh spends anything, and nobody but the sweep settles what it left.
    Ample,
    /// None is left: readers wait for a new one.
    Over,
}

/// What happens around the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Story {
    /// The provider answers at once.
    Refresh,
    /// The provider has done its part and answers 25 s later.
    Slow,
    /// The provider says "too many requests" once.
    Refused,
    /// The user has revoked the consent.
    Revoked,
    /// A first death has lost the answer; the second comes while that is written down.
    Settling,
    /// The database takes no tokens.
    Spool,
    /// The database takes no tokens for a while, then it does.
    Held,
    /// A spooled answer waits for the next start.
    Homecoming,
    /// No crash point: the process is killed when the new token has reached its reader.
    Told,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scene {
    pub story: Story,
    /// None where the harness itself kills.
    pub point: Option<Point>,
}

/// How a scene may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The connection works on.
    Survives,
    /// The departure was durable and the answer was not: honestly lost, or survived.
    MayBeLost,
    /// The provider itself has ended it.
    Ended,
}

impl Scene {
    /// Every scene for every point, so that a new point does not compile until it has one.
    pub fn all() -> Vec<Self> {
        let scenes = Point::ALL
            .iter()
            .flat_map(|point| stories(*point).iter().map(|story| Self { story: *story, point: Some(*point) }));
        scenes.chain([Self { story: Story::Told, point: None }]).collect()
    }

    pub fn name(self) -> String {
        let point = self.point.map_or("sigkill_after_reply", Point::name);
        match self.story {
            Story::Refresh | Story::Told | Story::Spool | Story::Held | Story::Homecoming => point.to_owned(),
            Story::Slow => format!("{point} (slow answer)"),
            Story::Refused => format!("{point} (429)"),
            Story::Revoked => format!("{point} (revoked)"),
            Story::Settling => format!("{point} (second death)"),
        }
    }

    /// Only a strict provider can leave anything to be settled for so long that a second death fits in, and what may be sent
    /// again at any time is not announced.
    pub fn is_played_for(self, kind: Kind) -> bool {
        let announces = matches!(self.point, Some(Point::BeforeAnnounce | Point::MidAnnounce | Point::AfterAnnounce));
        (self.story != Story::Settling || kind == Kind::Strict) && (!announces || kind != Kind::Lasting)
    }

    /// The rule of RL-06: what the next start finds, and what may then be done about it.
    pub fn fate(self, kind: Kind) -> Fate {
        if self.story == Story::Revoked {
            return Fate::Ended;
        }
        let in_doubt = self.story == Story::Settling || self.point.is_some_and(|point| leaves_doubt(self.story, point));
        if kind == Kind::Strict && in_doubt { Fate::MayBeLost } else { Fate::Survives }
    }

    /// Two deaths: too long for the quick run.
    pub fn takes_long(self) -> bool {
        self.story == Story::Settling
    }

    /// Whether the next start has to wait for the end of a doubt before it may do anything.
    pub fn waits_for_doubt(self, kind: Kind) -> bool {
        let before_the_record = matches!(self.point, Some(Point::BeforeRecord | Point::MidRecord));
        let unsaid = self.story == Story::Revoked && before_the_record;
        kind == Kind::Strict && (unsaid || self.fate(kind) == Fate::MayBeLost)
    }

    /// Whether a token with hours left is refreshed before the scene is over; otherwise nothing is pending.
    pub fn refreshes_what_is_ample(self, postgres: bool) -> bool {
        match (self.story, self.point) {
            (_, Some(Point::BeforeIntent)) | (Story::Refused, Some(Point::AfterRecord)) => false,
            // On PostgreSQL the claim commits by itself, and is durable here.
            (_, Some(Point::MidIntent)) => postgres,
            _ => true,
        }
    }
}

fn stories(point: Point) -> &'static [Story] {
    match point {
        Point::BeforeIntent
        | Point::MidIntent
        | Point::AfterIntent
        | Point::BeforeSend
        | Point::BeforeAnnounce
        | Point::MidAnnounce
        | Point::AfterAnnounce
        | Point::AfterSend
        | Point::AfterResponse
        | Point::MidStore
        | Point::AfterStore
        | Point::AfterLanding
        | Point::BeforeReply => &[Story::Refresh],
        Point::BeforeRenewal | Point::AfterRenewal => &[Story::Slow],
        Point::BeforeRecord | Point::MidRecord | Point::AfterRecord => {
            &[Story::Refused, Story::Revoked, Story::Settling]
        }
        Point::BeforeSpool | Point::MidSpool | Point::AfterSpool => &[Story::Spool],
        Point::BeforeTakeAway => &[Story::Held],
        Point::BeforeHomecoming | Point::AfterHomecoming => &[Story::Homecoming],
    }
}

/// That the token leaves is durable and what became of it is not.
fn leaves_doubt(story: Story, point: Point) -> bool {
    match point {
        Point::AfterAnnounce
        | Point::AfterSend
        | Point::BeforeRenewal
        | Point::AfterRenewal
        | Point::AfterResponse
        | Point::MidStore
        | Point::BeforeSpool
        | Point::MidSpool => true,
        Point::BeforeRecord | Point::MidRecord => story == Story::Refused,
        Point::BeforeIntent
        | Point::MidIntent
        | Point::AfterIntent
        | Point::BeforeSend
        | Point::BeforeAnnounce
        | Point::MidAnnounce
        | Point::AfterStore
        | Point::AfterRecord
        | Point::AfterLanding
        | Point::BeforeReply
        | Point::AfterSpool
        | Point::BeforeTakeAway
        | Point::BeforeHomecoming
        | Point::AfterHomecoming => false,
    }
}
