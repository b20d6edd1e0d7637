//! The documents agree with the code.

mod acl;
mod links_and_settings;
mod manual;
mod operations_doc;
mod protocol_doc;
