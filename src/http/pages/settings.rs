//! `GET /settings`: what we know of the person who looks.

use super::views::SettingsPage;
use super::{Page, PageCaller};

/// Everything on this page came with the proof.
pub(super) async fn show(PageCaller { frame, visitor, .. }: PageCaller) -> Page {
    let profile = visitor.user.as_ref().map(|user| user.profile.clone()).unwrap_or_default();
    Page::of(&SettingsPage {
        frame,
        name: profile.display_name,
        email: visitor.email.or(profile.email),
        platform: visitor.tenant.name,
        user: visitor.user.map(|user| user.external_id),
        role: visitor.role.map(|role| role.as_str().to_owned()),
    })
}
