//! Arguments of declarations: which make a difference here, which do not, which are refused.

use super::spec::Refusal;
use annals_core::properties::{FieldValue, Fields};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Arguments by name, in a form that compares: integers whatever their width.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Arguments(BTreeMap<String, (&'static str, String)>);

/// What a queue may be told and what becomes of it. Sorted by what happens.
const QUEUE_WITHOUT_EFFECT: [&str; 5] = [
    "x-queue-mode",
    "x-queue-version",
    // Redeliveries are not counted: no limit is applied.
    "x-delivery-limit",
    "x-queue-master-locator",
    "x-quorum-initial-group-size",
];
const QUEUE_NOT_YET: [&str; 9] = [
    "x-expires",
    "x-message-ttl",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
];

impl Arguments {
    /// Reads an encoded table.
    pub(crate) fn parse(table: &Bytes) -> Result<Self, Refusal> {
        annals_core::properties::check_table(table, 0)
            .map_err(|_| Refusal::new(406, "malformed arguments"))?;
        let fields = Fields::new(table).map(|(name, value)| (name.to_owned(), shown(value)));
        Ok(Self(fields.collect()))
    }

    /// Of a queue: refuses by name what would make a difference that is not made here.
    pub(crate) fn of_queue(
        table: &Bytes,
        queue: &str,
        durable: bool,
        exclusive: bool,
    ) -> Result<Self, Refusal> {
        let mut arguments = Self::parse(table)?;
        let refuse = |text: String| {
            let text = format!("{text} for queue '{queue}' in vhost '/'");
            Err(Refusal::new(406, text))
        };
        for (name, (_, value)) in &arguments.0 {
            let name = name.as_str();
            match name {
                "x-queue-type" if value == "classic" => {}
                "x-queue-type" if value == "quorum" => {
                    if !durable {
                        return refuse("invalid property 'non-durable'".to_owned());
                    }
                    if exclusive {
                        return refuse("invalid property 'exclusive'".to_owned());
                    }
                }
                "x-queue-type" => {
                    return refuse(format!("queue type '{value}' is not supported"));
                }
                "x-single-active-consumer" if value == "false" => {}
                "x-single-active-consumer" => {
                    return refuse(format!("argument '{name}' is not supported yet"));
                }
                _ if QUEUE_WITHOUT_EFFECT.contains(&name) => {}
                _ if QUEUE_NOT_YET.contains(&name) => {
                    return refuse(format!("argument '{name}' is not supported yet"));
                }
                _ if name.starts_with("x-") => {
                    return refuse(format!("unknown argument '{name}'"));
                }
                _ => {}
            }
        }
        // The default, said or not.
        if arguments
            .0
            .get("x-queue-type")
            .is_some_and(|(_, v)| v == "classic")
        {
            arguments.0.remove("x-queue-type");
        }
        Ok(arguments)
    }

    /// Of anything else: refuses every `x-` argument, and `alternate-exchange`, by name.
    pub(crate) fn without_effect(table: &Bytes, of: &str) -> Result<Self, Refusal> {
        let arguments = Self::parse(table)?;
        for name in arguments.0.keys() {
            if name == "alternate-exchange" {
                let text = format!("argument '{name}' for {of} is not supported yet");
                return Err(Refusal::new(406, text));
            }
            if name.starts_with("x-") {
                let text = format!("unknown argument '{name}' for {of}");
                return Err(Refusal::new(406, text));
            }
        }
        Ok(arguments)
    }

    /// Refuses arguments other than those something was declared with.
    pub(crate) fn check_same(&self, received: &Self, of: &str) -> Result<(), Refusal> {
        let names = self.0.keys().chain(received.0.keys());
        for name in names.filter(|name| name.starts_with("x-")) {
            let (current, received) = (self.0.get(name), received.0.get(name));
            if current == received {
                continue;
            }
            let say = |value: Option<&(&str, String)>, the: &str| match value {
                Some((kind, value)) => format!("{the}the value '{value}' of type '{kind}'"),
                None => format!("{the}none"),
            };
            return Err(Refusal::new(
                406,
                format!(
                    "inequivalent arg '{name}' for {of} in vhost '/': {} but {}",
                    say(received, "received "),
                    say(current, "current is "),
                ),
            ));
        }
        Ok(())
    }
}

fn shown(value: FieldValue<'_>) -> (&'static str, String) {
    match value {
        FieldValue::Boolean(v) => ("bool", v.to_string()),
        FieldValue::Integer(v) => ("signedint", v.to_string()),
        FieldValue::Float(v) => ("double", v.to_string()),
        FieldValue::LongString(v) => ("longstr", String::from_utf8_lossy(v).into_owned()),
        FieldValue::Bytes(v) => ("binary", format!("{v:?}")),
        FieldValue::Timestamp(v) => ("timestamp", v.to_string()),
        FieldValue::Other(b'A', v) => ("array", format!("{v:?}")),
        FieldValue::Other(b'F', v) => ("table", format!("{v:?}")),
        FieldValue::Other(_, v) => ("decimal", format!("{v:?}")),
        FieldValue::Void => ("void", String::new()),
    }
}
