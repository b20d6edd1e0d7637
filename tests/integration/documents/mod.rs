//! What the documents say is so.

mod acl;
mod manual;
mod operations_doc;
mod protocol_doc;
