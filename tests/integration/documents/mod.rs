//! The documents agree with the code.

mod acl;
mod compatibility;
mod links_and_settings;
mod manual;
mod operations_doc;
mod protocol_doc;
