//! The doors of pages, end to end.
