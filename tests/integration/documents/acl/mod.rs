//! The users of docs/OPERATIONS.md have the rights that the programs need, and no others.
//!
//! Their lines are taken from the document.

mod calls;
mod dead;
mod doctor;
mod forbidden;
mod look;
mod needed;
mod operate;
mod shadow;
mod stream;
mod tools;
mod users;
