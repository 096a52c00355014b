//! CloudEvents in JSON and in binary mode: what is accepted has a canonical form that stays.

use annals_core::{Event, Properties, binary, json};
use bytes::Bytes;

/// What decodes, encodes again, and decodes to the same event from then on.
pub fn run_json(bytes: &[u8]) {
    if let Ok(event) = json::decode(bytes) {
        let again = settle_json(&event);
        assert_eq!(again.bytes(), settle_json(&again).bytes());
        let (one, two) = (event.header(), again.header());
        assert_eq!(one.key(), two.key());
        assert_eq!((one.event_type, one.time), (two.event_type, two.time));
        assert_eq!(one.subject, two.subject);
    }
    // Any valid event can be written as JSON and read back, if its values have a textual form.
    if let Ok(event) = Event::parse(Bytes::copy_from_slice(bytes))
        && let Ok(text) = json::encode(&event)
    {
        serde_json::from_slice::<&serde_json::value::RawValue>(&text).expect("valid JSON");
    }
}

fn settle_json(event: &Event) -> Event {
    let text = json::encode(event).expect("what came from JSON goes to JSON");
    json::decode(&text).expect("what was written is read")
}

/// What decodes, encodes again, and decodes to the same event. The input is a 16-bit length of
/// the properties, properties, body.
pub fn run_binary(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let Some((properties, body)) = rest.split_at_checked(u16::from_be_bytes(*length).into()) else {
        return;
    };
    let Ok(properties) = Properties::parse(properties.to_vec()) else {
        return;
    };
    let said = binary::is_binary(&properties);
    let Ok(event) = binary::decode(&properties, &Bytes::copy_from_slice(body)) else {
        return;
    };
    let canonical = properties.content_type().is_some_and(|t| {
        t.to_ascii_lowercase()
            .starts_with("application/cloudevents")
    });
    assert!(said || canonical, "an event that did not say it is one");
    let Ok((properties, body)) = binary::encode(&event) else {
        // Only an attribute that is too long for a short string.
        assert!(event.bytes().len() > 255);
        return;
    };
    let again = binary::decode(&properties, &body).expect("what was written is read");
    assert_eq!(event.header().key(), again.header().key());
    assert_eq!(event.header().data.bytes(), again.header().data.bytes());
}

/// Events in JSON: real ones, and one of each feature.
pub fn json_seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<_> = crate::schema::sample_lines(20);
    seeds.extend(
        [
            r#"{"specversion":"1.0","id":"i","source":"/s","type":"t"}"#,
            r#"{"specversion":"1.0","id":"i","source":"/s","type":"t","n":-7,"b":true,"z":null,"data":null}"#,
            r#"{"specversion":"1.0","id":"i","source":"/s","type":"t","data_base64":"AQI="}"#,
            r#"{"specversion":"1.0","id":"i","source":"/s","type":"t","datacontenttype":"text/xml","data":"<a\/>\u00e9"}"#,
            r#"{ "type" : "t" , "id":"i","source":"/s","specversion":"1.0","datacontenttype":"a/b+json;c=d","dataschema":"x:y","data":[[{"a":[1e9,{}]}]]}"#,
        ]
        .map(|text| text.as_bytes().to_vec()),
    );
    seeds.extend(crate::header::seeds());
    seeds
}

/// Messages in binary mode, in the input form of [`run_binary`].
pub fn binary_seeds() -> Vec<Vec<u8>> {
    let join = |properties: &Properties, body: &[u8]| {
        let length = (properties.bytes().len() as u16).to_be_bytes();
        [&length[..], properties.bytes(), body].concat()
    };
    let plain = Properties::builder()
        .content_type("application/json")
        .header("cloudEvents:specversion", "1.0")
        .header("cloudEvents:id", "i")
        .header("cloudEvents:source", "/s")
        .header("cloudEvents:type", "t")
        .header("cloudEvents:time", "2026-11-20T14:00:00+01:00")
        .header_fields(b"\x0dcloudEvents:nI\0\0\0\x07")
        .build()
        .expect("well-formed");
    let mut seeds = vec![join(&plain, b"{}")];
    for bytes in crate::header::seeds() {
        if let Ok(event) = Event::parse(bytes) {
            let (properties, body) = binary::encode(&event).expect("a seed is short");
            seeds.push(join(&properties, &body));
        }
    }
    seeds
}
