//! Distinct events of about 330 bytes with realistic entropy, and nothing else, from a seed.

use annals_core::{Event, EventBuilder, Timestamp, attribute};
use std::collections::HashMap;

/// The eight types, in equal shares.
pub(crate) const TYPES: [&str; 8] = [
    "shop.v1.OrderPlaced",
    "shop.v1.OrderPaid",
    "shop.v1.OrderShipped",
    "shop.v1.OrderClosed",
    "mail.v1.MailQueued",
    "mail.v1.MailSent",
    "billing.v1.InvoiceIssued",
    "billing.v1.InvoicePaid",
];

const WORDS: [&str; 32] = [
    "amber", "basalt", "cedar", "delta", "ember", "fjord", "grove", "harbor", "island", "juniper",
    "kelp", "lagoon", "meadow", "nectar", "orchid", "pebble", "quartz", "river", "summit",
    "tundra", "umber", "valley", "willow", "xenon", "yarrow", "zephyr", "anchor", "beacon",
    "canyon", "drift", "estuary", "forest",
];

/// The schema files of the eight types, by name: what [`Generator`] writes as payloads.
pub(crate) fn schemas() -> Vec<(String, String)> {
    let mut packages: Vec<&str> = TYPES.iter().map(|t| package_of(t).0).collect();
    packages.dedup();
    let file = |package: &str| {
        let of_package = TYPES.iter().map(|t| package_of(t));
        let messages: String = of_package
            .filter(|(other, _)| *other == package)
            .map(|(_, name)| format!("message {name} {{ {FIELDS} }}\n"))
            .collect();
        let text = format!("syntax = \"proto3\";\npackage {package};\n{messages}");
        (format!("{}.proto", package.replace('.', "/")), text)
    };
    packages.into_iter().map(file).collect()
}

fn package_of(event_type: &str) -> (&str, &str) {
    event_type.rsplit_once('.').expect("types have dots")
}

const FIELDS: &str = "string subject = 1; string customer = 2; fixed64 amount = 3; \
                      string status = 4; string item = 5; string place = 6; string note = 7;";

/// Makes the `n`-th event of the endless sequence; the same for the same number, always.
#[derive(Debug)]
pub(crate) struct Generator {
    state: u64,
    n: u64,
    /// Where it started: names its producers.
    started: u64,
    /// Events of each producer so far, by service.
    sequences: HashMap<&'static str, u64>,
}

impl Generator {
    /// Starts the sequence of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            n: 0,
            started: 0,
            sequences: HashMap::new(),
        }
    }

    /// Starts the sequence of a seed after so many events: numbers and times go on from there.
    pub(crate) fn after(seed: u64, n: u64) -> Self {
        Self {
            n,
            started: n,
            ..Self::new(seed)
        }
    }

    /// How many events were made before the next.
    pub(crate) fn made(&self) -> u64 {
        self.n
    }

    /// The next event: full envelope, stamped by a producer of its own.
    pub(crate) fn next(&mut self) -> Event {
        self.n += 1;
        let random = self.random();
        let event_type = TYPES[(random % 8) as usize];
        let service = event_type.split('.').next().expect("types have dots");
        // Dense, as a producer's are; one that goes on is another incarnation.
        let sequence = self.sequences.entry(service).or_default();
        *sequence += 1;
        let sequence = *sequence;
        let producer = format!("p-{service}-{}", self.started);
        let subject = format!("o-{}", self.random() % 1_000_000);
        let time = Timestamp::from_microsecond(1_760_000_000_000_000 + self.n as i64 * 173)
            .expect("in range");
        let id = format!(
            "{:08x}-{:04x}-7{:03x}-{:04x}-{:012x}",
            (1_760_000_000_000 + self.n as i64 / 6) >> 16,
            (self.n / 6) & 0xffff,
            self.random() & 0xfff,
            0x8000 | (self.random() & 0x3fff),
            self.random() & 0xffff_ffff_ffff,
        );
        let payload = self.payload(&subject);
        EventBuilder::new(event_type, format!("/{service}"), id)
            .and_then(|b| b.time(time).subject(&subject))
            .and_then(|b| b.attribute(attribute::PRODUCER_ID, producer))
            .and_then(|b| b.attribute(attribute::PRODUCER_SEQ, sequence.to_string()))
            .and_then(|b| b.protobuf(payload).build())
            .expect("a generated event is valid")
    }

    /// A Protobuf-shaped payload: an id, numbers, a few words.
    fn payload(&mut self, subject: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        let text = |number: u8, value: &str, out: &mut Vec<u8>| {
            out.extend_from_slice(&[number << 3 | 2, value.len() as u8]);
            out.extend_from_slice(value.as_bytes());
        };
        text(1, subject, &mut out);
        text(2, &format!("c-{:06x}", self.random() & 0xff_ffff), &mut out);
        out.push(3 << 3 | 1);
        out.extend_from_slice(&self.random().to_le_bytes());
        for number in 4..8 {
            let value = self.random();
            let word = WORDS[(value % 32) as usize];
            text(number, &format!("{word}-{}", (value >> 8) % 97), &mut out);
        }
        out
    }

    /// xorshift64*.
    fn random(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
