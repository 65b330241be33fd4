//! The Automerge view of a document; the only file that names automerge.
