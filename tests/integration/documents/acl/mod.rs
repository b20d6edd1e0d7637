//! The users of docs/OPERATIONS.md have the rights that the programs need, and no others.
//!
//! Their lines are taken from the document.

mod calls;
mod dead;
mod doctor;
mod elsewhere;
mod forbidden;
mod look;
mod needed;
mod operate;
mod rights;
mod several;
mod shadow;
mod site;
mod stream;
mod tools;
mod users;
