//! Named points at which a test can kill the process, to prove that whatever is left behind is a state that the next
//! start understands (RL-03).
//!
//! `crash_point!(AfterIntent);` is nothing at all unless the program is built with the feature `crash-points`. With it,
//! `VALETKEY_CRASH_POINT=after_intent:1` lets the process die there, the first time it comes by: at once, as by a
//! power cut, with nothing flushed, closed or dropped.

#[cfg(feature = "crash-points")]
mod points;

#[cfg(feature = "crash-points")]
pub use points::{Aim, AimError, Point, aim, reach};

// A profile that optimises may be used for measuring, with debug assertions on. What is released never dies on demand.
#[cfg(all(feature = "crash-points", not(debug_assertions)))]
compile_error!("crash points are for tests: build without the feature, or with debug assertions");

/// Dies here when the settings say so; the points and what they mean stand in `crash/points.rs`.
macro_rules! crash_point {
    ($point:ident) => {
        #[cfg(feature = "crash-points")]
        $crate::crash::reach($crate::crash::Point::$point);
    };
}

pub(crate) use crash_point;
