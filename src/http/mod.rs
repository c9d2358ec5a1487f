//! The doors. (The pages' views are here first; the other doors come beside them.)

pub mod pages;
