//! What an [`Error`](crate::Error) tells its caller beyond the message.

use std::collections::BTreeMap;

/// One detail of an error, readable by the caller.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Detail {
    /// A field of the request that was refused.
    Field(FieldViolation),
    /// The reason as a constant a program can act on.
    Info(ErrorInfo),
    /// A detail of a type that Mainstay doesn't know, as another service sent it. It goes on to gRPC callers unread.
    Any(AnyDetail),
}

/// A field of the request that was refused, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FieldViolation {
    /// The path of the field from the request's root, as `lines[0].quantity`.
    pub path: String,
    /// What is wrong with it, for a person.
    pub message: String,
}

/// The reason of an error as a constant a program can act on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ErrorInfo {
    /// In upper snake case, as `STOCK_EXHAUSTED`.
    pub reason: String,
    /// Who defines the reason, as `shop.example.com`.
    pub domain: String,
    /// What more there is to know.
    pub metadata: BTreeMap<String, String>,
}

/// A protobuf message with the name of its type: `google.protobuf.Any`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AnyDetail {
    /// The type, as `type.googleapis.com/google.rpc.Help`.
    pub type_url: String,
    /// The encoded message.
    pub value: Vec<u8>,
}

impl FieldViolation {
    /// A violation of the field at `path`.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

impl From<FieldViolation> for Detail {
    fn from(violation: FieldViolation) -> Self {
        Detail::Field(violation)
    }
}

impl From<AnyDetail> for Detail {
    fn from(detail: AnyDetail) -> Self {
        Detail::Any(detail)
    }
}

impl From<ErrorInfo> for Detail {
    fn from(info: ErrorInfo) -> Self {
        Detail::Info(info)
    }
}
