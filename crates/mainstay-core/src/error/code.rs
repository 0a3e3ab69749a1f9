//! [`Code`]: the 16 canonical codes of gRPC.

use std::fmt;

/// What kind of failure an error is: the canonical gRPC codes, by their names and numbers.
///
/// The HTTP status of each follows the canonical mapping, except `FailedPrecondition`: 409 here and 400 there. The
/// request is well formed and only the state of the resource forbids it; 400 would tell the caller to repair a
/// request that has nothing wrong.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Code {
    /// The caller gave up.
    Cancelled = 1,
    /// A failure that says nothing about itself.
    Unknown = 2,
    /// The request itself is wrong, whatever the state of the service.
    InvalidArgument = 3,
    /// The deadline passed before the work was done.
    DeadlineExceeded = 4,
    /// The thing asked for does not exist.
    NotFound = 5,
    /// The thing to be created exists.
    AlreadyExists = 6,
    /// The caller is known and may not do this.
    PermissionDenied = 7,
    /// A quota, a rate or a size limit.
    ResourceExhausted = 8,
    /// The state of the thing forbids the operation; trying again without changing that state will not help.
    FailedPrecondition = 9,
    /// A conflict with other work; trying again may succeed.
    Aborted = 10,
    /// Past the end of what exists.
    OutOfRange = 11,
    /// Not offered here.
    Unimplemented = 12,
    /// An invariant of the service broke.
    Internal = 13,
    /// The service, or something it needs, can't answer now; trying again later may succeed.
    Unavailable = 14,
    /// Data was lost or damaged for good.
    DataLoss = 15,
    /// The caller is not known.
    Unauthenticated = 16,
}

impl Code {
    /// Every code, in the order of its number.
    pub const ALL: [Code; 16] = [
        Code::Cancelled,
        Code::Unknown,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
        Code::Unauthenticated,
    ];

    /// The canonical name, as `NOT_FOUND`.
    pub const fn name(self) -> &'static str {
        match self {
            Code::Cancelled => "CANCELLED",
            Code::Unknown => "UNKNOWN",
            Code::InvalidArgument => "INVALID_ARGUMENT",
            Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Code::NotFound => "NOT_FOUND",
            Code::AlreadyExists => "ALREADY_EXISTS",
            Code::PermissionDenied => "PERMISSION_DENIED",
            Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Code::FailedPrecondition => "FAILED_PRECONDITION",
            Code::Aborted => "ABORTED",
            Code::OutOfRange => "OUT_OF_RANGE",
            Code::Unimplemented => "UNIMPLEMENTED",
            Code::Internal => "INTERNAL",
            Code::Unavailable => "UNAVAILABLE",
            Code::DataLoss => "DATA_LOSS",
            Code::Unauthenticated => "UNAUTHENTICATED",
        }
    }

    /// The code with this canonical name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }

    /// The HTTP status that answers with this code.
    pub const fn http_status(self) -> u16 {
        match self {
            Code::InvalidArgument | Code::OutOfRange => 400,
            Code::Unauthenticated => 401,
            Code::PermissionDenied => 403,
            Code::NotFound => 404,
            Code::Aborted | Code::AlreadyExists | Code::FailedPrecondition => 409,
            Code::ResourceExhausted => 429,
            Code::Cancelled => 499,
            Code::DataLoss | Code::Internal | Code::Unknown => 500,
            Code::Unimplemented => 501,
            Code::Unavailable => 503,
            Code::DeadlineExceeded => 504,
        }
    }

    /// Whether the failure is the service's and not the caller's: logged as an error, counted against its objective.
    pub const fn is_server_fault(self) -> bool {
        matches!(self, Code::DataLoss | Code::DeadlineExceeded | Code::Internal | Code::Unavailable | Code::Unknown)
    }

    /// What a caller reads when there is nothing better to tell.
    pub(crate) const fn fallback_message(self) -> &'static str {
        match self {
            Code::DataLoss => "data loss",
            Code::Internal => "internal error",
            Code::Unknown => "unknown error",
            _ => "",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_the_canonical_ones() {
        for (index, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, index + 1);
            assert_eq!(Code::from_name(code.name()), Some(code));
        }
        assert_eq!(Code::from_name("OK"), None);
    }
}
