//! An error on its way to the user: a line and an exit code (sysexits.h).

use byway_datapath::error::Kind;

/// What ends the program, said in one line.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) message: String,
}

impl Failure {
    /// A launched program's own error.
    pub(crate) const PROGRAM: u8 = 1;
    /// What `--help` says and shells use: the command line itself is wrong.
    pub(crate) const USAGE: u8 = 2;
    /// EX_UNAVAILABLE: the device went away.
    pub(crate) const DEVICE_GONE: u8 = 69;
    /// EX_OSERR: the system lacks something, or has it in use.
    pub(crate) const SYSTEM: u8 = 71;
    /// EX_NOPERM: a capability is missing.
    pub(crate) const PERMISSION: u8 = 77;
    /// EX_CONFIG: what we were told can't be done here; a name, queue, core or address that isn't there or
    /// isn't free is of this kind. What is there but in use or switched off is the system's (71).
    pub(crate) const CONFIGURATION: u8 = 78;

    pub(crate) fn configuration(message: impl Into<String>) -> Self {
        Self { code: Self::CONFIGURATION, message: message.into() }
    }

    pub(crate) fn system(message: impl Into<String>) -> Self {
        Self { code: Self::SYSTEM, message: message.into() }
    }
}

impl From<byway_datapath::Error> for Failure {
    fn from(error: byway_datapath::Error) -> Self {
        let code = match error.kind() {
            Kind::DeviceGone => Self::DEVICE_GONE,
            Kind::SystemLacks => Self::SYSTEM,
            Kind::Permission => Self::PERMISSION,
            Kind::Configuration => Self::CONFIGURATION,
        };
        Self { code, message: error.to_string() }
    }
}

impl From<byway_bpf::Error> for Failure {
    fn from(error: byway_bpf::Error) -> Self {
        use byway_bpf::Error as E;
        let code = match &error {
            E::Permission { .. } => Self::PERMISSION,
            E::NoSuchQueue { .. } | E::Full { .. } => Self::CONFIGURATION,
            _ => Self::SYSTEM,
        };
        Self { code, message: error.to_string() }
    }
}
