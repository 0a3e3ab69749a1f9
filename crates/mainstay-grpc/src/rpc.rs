//! The messages of `google.rpc` that errors travel in. Field numbers are the contract; they never change.

use std::collections::BTreeMap;

use prost::Message;
use prost_types::{Any, Duration};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Status {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(crate) details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct BadRequest {
    #[prost(message, repeated, tag = "1")]
    pub(crate) field_violations: Vec<Violation>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Violation {
    #[prost(string, tag = "1")]
    pub(crate) field: String,
    #[prost(string, tag = "2")]
    pub(crate) description: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ErrorInfo {
    #[prost(string, tag = "1")]
    pub(crate) reason: String,
    #[prost(string, tag = "2")]
    pub(crate) domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(crate) metadata: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub(crate) retry_delay: Option<Duration>,
}

/// A message that travels as a detail.
pub(crate) trait Packed: Message + Default {
    const URL: &'static str;

    fn pack(&self) -> Any {
        Any { type_url: Self::URL.to_owned(), value: self.encode_to_vec() }
    }

    /// The message in `any`, if it is of this type and holds nothing that we wouldn't write: what it holds beyond that
    /// would be lost.
    fn unpack(any: &Any) -> Option<Self> {
        // The name is what counts; whoever resolves it may stand before it.
        let named = any.type_url.rsplit('/').next() == Self::URL.rsplit('/').next();
        let message = if named { Self::decode(&*any.value).ok()? } else { return None };
        (message.encode_to_vec() == any.value).then_some(message)
    }
}

impl Packed for BadRequest {
    const URL: &'static str = "type.googleapis.com/google.rpc.BadRequest";
}

impl Packed for ErrorInfo {
    const URL: &'static str = "type.googleapis.com/google.rpc.ErrorInfo";
}

impl Packed for RetryInfo {
    const URL: &'static str = "type.googleapis.com/google.rpc.RetryInfo";
}
