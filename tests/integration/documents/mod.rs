//! What the documents say is so.

mod acl;
mod links_and_settings;
mod manual;
mod operations_doc;
mod protocol_doc;
