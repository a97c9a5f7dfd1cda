//! How a command ends: ONE table of exit codes, and the error that carries one.
//!
//! Scripts rely on these numbers; they never change. Must never know: what a command does. Next: `output.rs`.

use std::process::ExitCode;

use tonic::Code;
use tonic_types::StatusExt;

/// Shown at the end of `tidegate --help`.
pub const HELP: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 not allowed, 5 daemon unreachable, 6 wait timed out, \
7 jobs waited for ended dead or cancelled, 8 conflict, 78 bad configuration, 130 interrupted.";

/// The end of a command. The number is the process's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    /// The command line or a value in it is wrong.
    Usage = 2,
    NotFound = 3,
    NotAllowed = 4,
    /// No daemon answered at the address, or it is shutting down.
    Unreachable = 5,
    /// What was waited for did not happen in time; nothing is lost, wait again.
    TimedOut = 6,
    /// Jobs that were waited for ended as dead or cancelled.
    EndedBadly = 7,
    /// The state of things does not allow it: already exists, changed meanwhile, not in this state.
    Conflict = 8,
    /// The configuration is wrong. systemd does not restart after this one.
    BadConfig = 78,
    /// Ctrl-C.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

impl Exit {
    /// What a status of the daemon means for a script.
    pub fn of(code: Code) -> Exit {
        match code {
            Code::Ok => Exit::Done,
            Code::InvalidArgument | Code::OutOfRange => Exit::Usage,
            Code::NotFound => Exit::NotFound,
            Code::PermissionDenied | Code::Unauthenticated => Exit::NotAllowed,
            Code::Unavailable => Exit::Unreachable,
            Code::DeadlineExceeded => Exit::TimedOut,
            Code::AlreadyExists | Code::Aborted | Code::FailedPrecondition => Exit::Conflict,
            Code::Cancelled => Exit::Interrupted,
            Code::Unknown | Code::ResourceExhausted | Code::Unimplemented | Code::Internal | Code::DataLoss => {
                Exit::Failed
            }
        }
    }
}

/// Why a command failed: one sentence for people, and what to do next where that is known.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub exit: Exit,
    pub message: String,
    /// Every single thing that is wrong, where there is more to say than the message.
    pub details: Vec<String>,
    pub hint: Option<String>,
}

impl Error {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Error { exit, message: message.into(), details: Vec::new(), hint: None }
    }

    pub fn failed(message: impl Into<String>) -> Self {
        Error::new(Exit::Failed, message)
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Error::new(Exit::Usage, message)
    }

    /// Adds the next step.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        Error::failed(e.to_string())
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        let mut error = Error::new(Exit::of(status.code()), status.message());
        let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
        // A single one is the message already.
        if violations.len() > 1 || status.message().lines().count() > 1 {
            error.details = violations.into_iter().map(|v| format!("{}: {}", v.field, v.description)).collect();
        }
        match status.code() {
            Code::Unavailable => error.hint("the daemon is starting, draining or away; try again"),
            Code::ResourceExhausted => match status.get_details_retry_info().and_then(|info| info.retry_delay) {
                Some(wait) => error.hint(format!("there is room again in {}", super::show::short(wait.as_secs_f64()))),
                None => error,
            },
            Code::Unimplemented => error.hint("the daemon is older than this program; compare `tidegate version`"),
            _ => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_means_the_same_to_every_script() {
        let table = [
            (Code::InvalidArgument, 2),
            (Code::NotFound, 3),
            (Code::PermissionDenied, 4),
            (Code::Unavailable, 5),
            (Code::DeadlineExceeded, 6),
            (Code::FailedPrecondition, 8),
            (Code::AlreadyExists, 8),
            (Code::Aborted, 8),
            (Code::Internal, 1),
        ];
        for (code, number) in table {
            assert_eq!(Exit::of(code) as u8, number, "{code:?}");
        }
    }

    #[test]
    fn the_help_names_every_exit_code() {
        let all = [
            Exit::Done,
            Exit::Failed,
            Exit::Usage,
            Exit::NotFound,
            Exit::NotAllowed,
            Exit::Unreachable,
            Exit::TimedOut,
            Exit::EndedBadly,
            Exit::Conflict,
            Exit::BadConfig,
            Exit::Interrupted,
        ];
        for exit in all {
            let number = (exit as u8).to_string();
            assert!(HELP.split([' ', ',', ':']).any(|word| word == number), "{number} is not in the help");
        }
    }
}
