//! A provider that misbehaves on the wire, for tests.
