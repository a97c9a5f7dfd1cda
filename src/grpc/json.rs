//! The proto's JSON, for the command line: one schema for gRPC, REST and `-o json`.
//!
//! Goes through the descriptors, so a field that is new in a proto is new in the JSON. Must never know: what a message
//! means. Next: `cli/output`.

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| decode(super::pb::BARE_DESCRIPTORS));

fn decode(set: &[u8]) -> DescriptorPool {
    DescriptorPool::decode(set).expect("the build wrote a sound descriptor set")
}

/// As [`pool`], with the comments; not kept.
pub(super) fn commented() -> DescriptorPool {
    decode(super::pb::DESCRIPTORS)
}

/// Every message and service of `tidegate.v1`, without their comments.
pub(super) fn pool() -> &'static DescriptorPool {
    &POOL
}

fn descriptor(name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(&format!("tidegate.v1.{name}")).expect("callers name messages of tidegate.v1")
}

/// The canonical JSON of a message of `tidegate.v1` (`name` without the package), on one line or indented.
/// 64-bit integers are texts, times are RFC 3339, empty fields are left out.
pub fn to_json(name: &str, message: &impl prost::Message, indent: bool) -> String {
    let mut dynamic = DynamicMessage::new(descriptor(name));
    dynamic.transcode_from(message).expect("the type and the name are of one message");
    let mut out = Vec::new();
    let options = SerializeOptions::new();
    let written = match indent {
        true => dynamic.serialize_with_options(&mut serde_json::Serializer::pretty(&mut out), &options),
        false => dynamic.serialize_with_options(&mut serde_json::Serializer::new(&mut out), &options),
    };
    written.expect("a message of known types has a JSON form");
    String::from_utf8(out).expect("serde_json writes UTF-8")
}

/// Reads the JSON form of a message. Unknown fields are refused, so that a slip of the pen does not pass unseen.
pub fn from_json<M: prost::Message + Default>(name: &str, text: &str) -> Result<M, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let dynamic = DynamicMessage::deserialize_with_options(descriptor(name), &mut reader, &options)?;
    reader.end()?;
    Ok(dynamic.transcode_to().expect("the type and the name are of one message"))
}

#[cfg(test)]
mod tests {
    use super::super::pb;
    use super::*;

    #[test]
    fn a_message_reads_back_from_its_json() {
        let spec = pb::JobSpec {
            provider: "crm".into(),
            operation: "sync_user".into(),
            payload: r#"{"name":"Ada"}"#.into(),
            priority_class: pb::PriorityClass::Urgent as i32,
            start: Some(pb::job_spec::Start::Delay(prost_types::Duration { seconds: 90, nanos: 0 })),
            ..Default::default()
        };
        let text = to_json("JobSpec", &spec, false);
        assert!(
            text.contains(r#""priorityClass":"PRIORITY_CLASS_URGENT""#) && text.contains(r#""delay":"90s""#),
            "{text}"
        );
        assert_eq!(from_json::<pb::JobSpec>("JobSpec", &text).unwrap(), spec);
    }

    #[test]
    fn a_slip_of_the_pen_does_not_pass() {
        let e = from_json::<pb::JobSpec>("JobSpec", r#"{"provder": "crm"}"#).unwrap_err().to_string();
        assert!(e.contains("provder"), "{e}");
        assert!(from_json::<pb::JobSpec>("JobSpec", "{} x").is_err());
    }
}
