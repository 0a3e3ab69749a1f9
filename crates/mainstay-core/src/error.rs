//! [`Error`]: one type for everything that can fail, from a driver to an HTTP answer.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::panic::Location;
use std::time::Duration;

mod code;
mod detail;

pub use code::Code;
pub use detail::{AnyDetail, Detail, ErrorInfo, FieldViolation};

/// `Result` with [`Error`] as its error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure: a [`Code`] and a message for whoever asked, and a private chain for whoever repairs it.
///
/// The two never mix. [`Error::message`] and [`Error::details`] go to the caller; contexts and sources
/// ([`Error::report`]) go to the log. For codes that are the service's own fault ([`Code::is_server_fault`]) made by
/// [`Error::internal`], [`Error::unknown`] and [`Error::data_loss`] the text is private and the caller sees a fixed
/// sentence.
///
/// ```
/// use mainstay_core::{Code, Error, ResultExt};
///
/// fn load() -> mainstay_core::Result<()> {
///     std::fs::read("/no/such/file").context("loading the order")?; // any error becomes `Internal`
///     Ok(())
/// }
/// let error = load().unwrap_err();
/// assert_eq!(error.code(), Code::Internal);
/// assert!(error.is::<std::io::Error>());
/// assert_eq!(error.message(), "internal error");
/// assert!(error.report().to_string().starts_with("loading the order: "));
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    code: Code,
    message: Cow<'static, str>,
    contexts: Vec<Cow<'static, str>>, // innermost first
    details: Vec<Detail>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    location: &'static Location<'static>,
}

impl Error {
    /// An error with a message that the caller may read.
    #[track_caller]
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            code,
            message: message.into(),
            contexts: Vec::new(),
            details: Vec::new(),
            retry_after: None,
            source: None,
            location: Location::caller(),
        }))
    }

    /// [`Code::NotFound`]: `what` is the thing, as in `Error::not_found("order")`; the message is "order not found".
    #[track_caller]
    pub fn not_found(what: impl fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("{what} not found"))
    }

    /// [`Code::AlreadyExists`]: `what` is the thing; the message is "order already exists".
    #[track_caller]
    pub fn already_exists(what: impl fmt::Display) -> Self {
        Self::new(Code::AlreadyExists, format!("{what} already exists"))
    }

    /// [`Code::InvalidArgument`] with a message for the caller.
    #[track_caller]
    pub fn invalid_argument(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// [`Code::FailedPrecondition`] with a message for the caller.
    #[track_caller]
    pub fn failed_precondition(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::FailedPrecondition, message)
    }

    /// [`Code::PermissionDenied`] with a message for the caller.
    #[track_caller]
    pub fn permission_denied(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::PermissionDenied, message)
    }

    /// [`Code::Unauthenticated`] with a message for the caller.
    #[track_caller]
    pub fn unauthenticated(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Unauthenticated, message)
    }

    /// [`Code::ResourceExhausted`] with a message for the caller.
    #[track_caller]
    pub fn resource_exhausted(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::ResourceExhausted, message)
    }

    /// [`Code::Aborted`] with a message for the caller: the same call may succeed when it is made again.
    #[track_caller]
    pub fn aborted(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Aborted, message)
    }

    /// [`Code::Unavailable`] with a message for the caller.
    #[track_caller]
    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    /// [`Code::Unimplemented`] with a message for the caller.
    #[track_caller]
    pub fn unimplemented(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Unimplemented, message)
    }

    /// [`Code::Internal`]: `private` goes to the log, the caller reads "internal error".
    #[track_caller]
    pub fn internal(private: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Internal, Code::Internal.fallback_message()).context(private)
    }

    /// [`Code::Unknown`]: `private` goes to the log, the caller reads "unknown error".
    #[track_caller]
    pub fn unknown(private: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Unknown, Code::Unknown.fallback_message()).context(private)
    }

    /// [`Code::DataLoss`]: `private` goes to the log, the caller reads "data loss".
    #[track_caller]
    pub fn data_loss(private: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::DataLoss, Code::DataLoss.fallback_message()).context(private)
    }

    /// Any error as [`Code::Internal`], kept as the private source. An [`Error`] stays what it is.
    #[track_caller]
    pub fn from_any(source: impl StdError + Send + Sync + 'static) -> Self {
        let source: Box<dyn StdError + Send + Sync> = Box::new(source);
        match source.downcast::<Error>() {
            Ok(error) => *error,
            Err(source) => Self::new(Code::Internal, Code::Internal.fallback_message()).with_boxed_source(source),
        }
    }

    /// Keeps the error that caused this one, for the log and for [`Error::is`].
    #[must_use]
    pub fn with_source(self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.with_boxed_source(Box::new(source))
    }

    /// Adds what was being done, for the log only. The caller's message does not change.
    #[must_use]
    pub fn context(mut self, doing: impl Into<Cow<'static, str>>) -> Self {
        self.0.contexts.push(doing.into());
        self
    }

    /// Replaces the code and the caller's message and keeps the whole private chain.
    #[must_use]
    pub fn with_code(mut self, code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        self.0.code = code;
        self.0.message = message.into();
        self
    }

    /// Adds a detail that the caller may read.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Detail>) -> Self {
        self.0.details.push(detail.into());
        self
    }

    /// Tells the caller when to try again: `Retry-After` over HTTP, `RetryInfo` over gRPC.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.0.retry_after = Some(delay);
        self
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The message for the caller.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The details for the caller.
    pub fn details(&self) -> &[Detail] {
        &self.0.details
    }

    /// The fields that were refused, among the details.
    pub fn field_violations(&self) -> impl Iterator<Item = &FieldViolation> {
        self.0.details.iter().filter_map(|detail| match detail {
            Detail::Field(violation) => Some(violation),
            _ => None,
        })
    }

    /// When the caller is asked to try again.
    pub fn retry_delay(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Where in the source the error was made.
    pub fn location(&self) -> &'static Location<'static> {
        self.0.location
    }

    /// Whether an `E` is anywhere in the private chain.
    pub fn is<E: StdError + 'static>(&self) -> bool {
        self.downcast_ref::<E>().is_some()
    }

    /// The first `E` in the private chain.
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        let mut next = self.source();
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }

    /// The private chain as one line: contexts from the outermost in, the message, the sources. For logs, never for
    /// callers.
    pub fn report(&self) -> Chain<'_> {
        Chain(self)
    }

    fn with_boxed_source(mut self, source: Box<dyn StdError + Send + Sync>) -> Self {
        self.0.source = Some(source);
        self
    }
}

/// The caller's message only.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

/// Everything, as `unwrap` and `{:?}` in a log need it.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code, self.report())?;
        for detail in &self.0.details {
            write!(f, "; {detail:?}")?;
        }
        write!(f, " (at {}:{})", self.0.location.file(), self.0.location.line())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<std::io::Error> for Error {
    #[track_caller]
    fn from(error: std::io::Error) -> Self {
        Self::from_any(error)
    }
}

impl From<serde_json::Error> for Error {
    #[track_caller]
    fn from(error: serde_json::Error) -> Self {
        Self::from_any(error)
    }
}

/// Prints the private chain of an [`Error`]; made by [`Error::report`].
pub struct Chain<'a>(&'a Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0.0;
        let mut separator = "";
        for context in inner.contexts.iter().rev() {
            write!(f, "{separator}{context}")?;
            separator = ": ";
        }
        // The fixed sentence of an internal error says nothing that the chain does not say better.
        let fixed = inner.message == inner.code.fallback_message();
        if !fixed || (inner.contexts.is_empty() && inner.source.is_none()) {
            write!(f, "{separator}{}", inner.message)?;
            separator = ": ";
        }
        let mut source = inner.source.as_deref().map(|source| source as &(dyn StdError + 'static));
        while let Some(error) = source {
            match error.downcast_ref::<Error>() {
                Some(error) => return write!(f, "{separator}{}", error.report()),
                None => write!(f, "{separator}{error}")?,
            }
            separator = ": ";
            source = error.source();
        }
        Ok(())
    }
}

/// Turns any `Result` into one with [`Error`], with a word about what was being done.
pub trait ResultExt<T> {
    /// Adds what was being done, for the log only. An error that is not an [`Error`] becomes [`Code::Internal`].
    ///
    /// # Errors
    /// The same failure, wrapped.
    fn context(self, doing: impl Into<Cow<'static, str>>) -> Result<T>;

    /// As [`ResultExt::context`], for a text that costs something to make.
    ///
    /// # Errors
    /// The same failure, wrapped.
    fn with_context<S: Into<Cow<'static, str>>>(self, doing: impl FnOnce() -> S) -> Result<T>;

    /// Gives the failure a code and a message for the caller, and keeps the chain private.
    ///
    /// # Errors
    /// The same failure, with `code` and `message`.
    fn or_code(self, code: Code, message: impl Into<Cow<'static, str>>) -> Result<T>;
}

impl<T, E: StdError + Send + Sync + 'static> ResultExt<T> for std::result::Result<T, E> {
    #[track_caller]
    fn context(self, doing: impl Into<Cow<'static, str>>) -> Result<T> {
        match self {
            Ok(value) => Ok(value),
            Err(error) => Err(Error::from_any(error).context(doing)),
        }
    }

    #[track_caller]
    fn with_context<S: Into<Cow<'static, str>>>(self, doing: impl FnOnce() -> S) -> Result<T> {
        match self {
            Ok(value) => Ok(value),
            Err(error) => Err(Error::from_any(error).context(doing())),
        }
    }

    #[track_caller]
    fn or_code(self, code: Code, message: impl Into<Cow<'static, str>>) -> Result<T> {
        match self {
            Ok(value) => Ok(value),
            Err(error) => Err(Error::from_any(error).with_code(code, message)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct DiskFull;
    impl fmt::Display for DiskFull {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("disk full")
        }
    }
    impl StdError for DiskFull {}

    #[test]
    fn three_wraps_keep_the_type_and_the_chain() {
        let first = Err::<(), _>(DiskFull).context("writing the page").unwrap_err();
        let second = Err::<(), _>(first).context("saving the order").unwrap_err();
        let third = Error::unavailable("try again later").with_source(second).context("placing");
        assert!(third.is::<DiskFull>());
        assert!(!third.is::<std::io::Error>());
        assert_eq!(third.code(), Code::Unavailable);
        assert_eq!(
            third.report().to_string(),
            "placing: try again later: saving the order: writing the page: disk full"
        );
        assert_eq!(third.to_string(), "try again later");
    }

    #[test]
    fn private_text_never_reaches_the_message() {
        let error = Error::internal("password=hunter2").with_source(DiskFull);
        assert_eq!(error.message(), "internal error");
        assert_eq!(error.to_string(), "internal error");
        assert_eq!(error.report().to_string(), "password=hunter2: disk full");
    }

    #[test]
    fn an_error_keeps_its_code_through_context() {
        let result: Result<()> = Err(Error::not_found("order"));
        let error = result.context("loading").unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::NotFound, "order not found"));
        assert!(format!("{error:?}").contains("NOT_FOUND: loading: order not found (at "));
    }

    #[test]
    fn an_error_is_one_pointer() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
