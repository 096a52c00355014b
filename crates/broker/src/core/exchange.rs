//! Exchanges, the bindings between them and to queues, and routing.

use super::arguments::Arguments;
use super::spec::{BindingSpec, Destination, ExchangeKind, ExchangeSpec, Refusal};
use annals_core::pattern::topic_matches;
use bytes::Bytes;
use foldhash::fast::RandomState;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Routing keys an exchange remembers the way of; over it, it forgets them all.
const CACHED_KEYS_MAX: usize = 8_192;

/// What a routing key leads to: places of queues, each once.
pub(crate) type Route = Arc<[u32]>;

#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) kind: ExchangeKind,
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    pub(crate) internal: bool,
    pub(crate) arguments: Bytes,
    /// Bindings from here, in the order made.
    bindings: Vec<Binding>,
    cache: HashMap<Arc<str>, Route, RandomState>,
    cached_at: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) destination: Destination,
    pub(crate) key: String,
    pub(crate) arguments: Bytes,
}

/// All exchanges. The default one, `""`, is in the routing alone.
#[derive(Debug, Default)]
pub(crate) struct Exchanges {
    by_name: BTreeMap<Arc<str>, Exchange>,
    /// Grows with every change of anything routing rests on.
    version: u64,
    default_cache: HashMap<Arc<str>, Route, RandomState>,
    default_cached_at: u64,
}

/// What a removal took along.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Unbound {
    /// Bindings that went.
    pub(crate) bindings: Vec<BindingSpec>,
    /// Auto-delete exchanges that lost their last binding, still there.
    pub(crate) idle: Vec<String>,
}

impl Exchanges {
    /// The ones every vhost has.
    pub(crate) fn predeclared() -> Self {
        let mut exchanges = Self::default();
        for kind in [
            ExchangeKind::Direct,
            ExchangeKind::Topic,
            ExchangeKind::Fanout,
        ] {
            exchanges.insert(&ExchangeSpec {
                name: format!("amq.{}", kind.name()),
                kind,
                durable: true,
                auto_delete: false,
                internal: false,
                passive: false,
                arguments: Bytes::new(),
            });
        }
        exchanges
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Exchange> {
        self.by_name.get(name)
    }

    pub(crate) fn find(&self, name: &str) -> Result<&Exchange, Refusal> {
        self.get(name).ok_or_else(|| no_exchange(name))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Exchange)> {
        self.by_name.iter()
    }

    /// Queues changed: routes are found anew.
    pub(crate) fn changed(&mut self) {
        self.version += 1;
    }

    /// Grows whenever a route may have changed.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn insert(&mut self, spec: &ExchangeSpec) {
        self.version += 1;
        self.by_name.insert(
            spec.name.as_str().into(),
            Exchange {
                kind: spec.kind,
                durable: spec.durable,
                auto_delete: spec.auto_delete,
                internal: spec.internal,
                arguments: spec.arguments.clone(),
                bindings: Vec::new(),
                cache: HashMap::default(),
                cached_at: 0,
            },
        );
    }

    /// Removes an exchange, with the bindings from and to it.
    pub(crate) fn remove(&mut self, name: &str) -> Unbound {
        self.version += 1;
        self.by_name.remove(name);
        self.unbind_destination(&Destination::Exchange(name.to_owned()))
    }

    /// Removes all bindings to a destination.
    pub(crate) fn unbind_destination(&mut self, destination: &Destination) -> Unbound {
        self.version += 1;
        let mut gone = Unbound::default();
        for (name, exchange) in &mut self.by_name {
            let before = exchange.bindings.len();
            exchange.bindings.retain(|binding| {
                let keep = binding.destination != *destination;
                if !keep {
                    gone.bindings.push(binding.spec(name));
                }
                keep
            });
            if exchange.bindings.len() < before && exchange.is_idle() {
                gone.idle.push(name.to_string());
            }
        }
        gone
    }

    /// Whether the binding is new.
    pub(crate) fn bind(&mut self, spec: &BindingSpec) -> Result<bool, Refusal> {
        let Some(exchange) = self.by_name.get_mut(spec.source.as_str()) else {
            return Err(no_exchange(&spec.source));
        };
        let binding = Binding {
            destination: spec.destination.clone(),
            key: spec.key.clone(),
            arguments: spec.arguments.clone(),
        };
        if exchange.bindings.contains(&binding) {
            return Ok(false);
        }
        exchange.bindings.push(binding);
        self.version += 1;
        Ok(true)
    }

    /// Whether the binding was there, and whether the source is now idle.
    pub(crate) fn unbind(&mut self, spec: &BindingSpec) -> (bool, bool) {
        let Some(exchange) = self.by_name.get_mut(spec.source.as_str()) else {
            return (false, false);
        };
        let before = exchange.bindings.len();
        exchange.bindings.retain(|binding| {
            binding.destination != spec.destination
                || binding.key != spec.key
                || binding.arguments != spec.arguments
        });
        self.version += 1;
        let found = exchange.bindings.len() < before;
        (found, found && exchange.is_idle())
    }

    /// Where a message goes. `queue` tells a queue's place by its name.
    pub(crate) fn route(
        &mut self,
        exchange: &str,
        key: &Arc<str>,
        queue: impl Fn(&str) -> Option<u32>,
    ) -> Result<Route, Refusal> {
        if let Some(route) = self.cached(exchange, key)? {
            return Ok(route);
        }
        let mut route = Vec::new();
        if exchange.is_empty() {
            route.extend(queue(key));
        } else {
            self.collect(exchange, key, &queue, &mut route);
        }
        let route: Route = route.into();
        let cache = match self.by_name.get_mut(exchange) {
            Some(exchange) => &mut exchange.cache,
            None => &mut self.default_cache,
        };
        if cache.len() >= CACHED_KEYS_MAX {
            cache.clear();
        }
        cache.insert(Arc::clone(key), Arc::clone(&route));
        Ok(route)
    }

    fn cached(&mut self, exchange: &str, key: &str) -> Result<Option<Route>, Refusal> {
        let (cache, at) = if exchange.is_empty() {
            (&mut self.default_cache, &mut self.default_cached_at)
        } else {
            let Some(found) = self.by_name.get_mut(exchange) else {
                return Err(no_exchange(exchange));
            };
            if found.internal {
                return Err(Refusal::new(
                    403,
                    format!("cannot publish to internal exchange '{exchange}' in vhost '/'"),
                ));
            }
            (&mut found.cache, &mut found.cached_at)
        };
        if *at != self.version {
            cache.clear();
            *at = self.version;
        }
        Ok(cache.get(key).cloned())
    }

    /// Follows bindings from exchange to exchange, entering each once.
    fn collect(
        &self,
        exchange: &str,
        key: &str,
        queue: &impl Fn(&str) -> Option<u32>,
        route: &mut Vec<u32>,
    ) {
        let mut entered = HashSet::from([exchange]);
        let mut queues = HashSet::new();
        let mut ahead = vec![exchange];
        while let Some(exchange) = ahead.pop().and_then(|name| self.by_name.get(name)) {
            for binding in &exchange.bindings {
                if !exchange.kind.leads(&binding.key, key) {
                    continue;
                }
                match &binding.destination {
                    Destination::Exchange(name) => {
                        if entered.insert(name) {
                            ahead.push(name);
                        }
                    }
                    Destination::Queue(name) => {
                        route.extend(queue(name).filter(|place| queues.insert(*place)));
                    }
                }
            }
        }
    }
}

impl Exchange {
    /// Whether a declaration describes this exchange.
    pub(crate) fn check_same(&self, spec: &ExchangeSpec) -> Result<(), Refusal> {
        let differs = |what: &str, received: &str, current: &str| {
            Err(Refusal::new(
                406,
                format!(
                    "inequivalent arg '{what}' for exchange '{}' in vhost '/': received \
                     '{received}' but current is '{current}'",
                    spec.name
                ),
            ))
        };
        if spec.kind != self.kind {
            return differs("type", spec.kind.name(), self.kind.name());
        }
        for (what, received, current) in [
            ("durable", spec.durable, self.durable),
            ("auto_delete", spec.auto_delete, self.auto_delete),
            ("internal", spec.internal, self.internal),
        ] {
            if received != current {
                return differs(what, &received.to_string(), &current.to_string());
            }
        }
        Arguments::parse(&self.arguments)?.check_same(
            &Arguments::parse(&spec.arguments)?,
            &format!("exchange '{}'", spec.name),
        )
    }

    /// Whether it has bindings from it.
    pub(crate) fn is_used(&self) -> bool {
        !self.bindings.is_empty()
    }

    pub(crate) fn bindings(&self) -> &[Binding] {
        &self.bindings
    }

    fn is_idle(&self) -> bool {
        self.auto_delete && self.bindings.is_empty()
    }
}

impl Binding {
    pub(crate) fn spec(&self, source: &str) -> BindingSpec {
        BindingSpec {
            source: source.to_owned(),
            destination: self.destination.clone(),
            key: self.key.clone(),
            arguments: self.arguments.clone(),
        }
    }
}

impl ExchangeKind {
    fn leads(self, binding_key: &str, routing_key: &str) -> bool {
        match self {
            Self::Direct => binding_key == routing_key,
            Self::Topic => topic_matches(binding_key, routing_key),
            Self::Fanout => true,
        }
    }
}

fn no_exchange(name: &str) -> Refusal {
    Refusal::new(404, format!("no exchange '{name}' in vhost '/'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exchanges `d` (direct), `t` (topic), `f` (fanout), `g` (fanout); queues named by digits.
    fn exchanges(bindings: &[(&str, &str, &str)]) -> Exchanges {
        let mut exchanges = Exchanges::predeclared();
        for (name, kind) in [
            ("d", ExchangeKind::Direct),
            ("t", ExchangeKind::Topic),
            ("f", ExchangeKind::Fanout),
            ("g", ExchangeKind::Fanout),
        ] {
            exchanges.insert(&ExchangeSpec {
                name: name.to_owned(),
                kind,
                durable: true,
                auto_delete: false,
                internal: false,
                passive: false,
                arguments: Bytes::new(),
            });
        }
        for (source, destination, key) in bindings {
            let destination = if destination.parse::<u32>().is_ok() {
                Destination::Queue((*destination).to_owned())
            } else {
                Destination::Exchange((*destination).to_owned())
            };
            let spec = BindingSpec {
                source: (*source).to_owned(),
                destination,
                key: (*key).to_owned(),
                arguments: Bytes::new(),
            };
            assert!(exchanges.bind(&spec).unwrap());
        }
        exchanges
    }

    fn route(exchanges: &mut Exchanges, exchange: &str, key: &str) -> Vec<u32> {
        let queue = |name: &str| name.parse().ok();
        let mut route = exchanges
            .route(exchange, &key.into(), queue)
            .unwrap()
            .to_vec();
        route.sort_unstable();
        route
    }

    #[test]
    fn messages_follow_the_bindings() {
        #[track_caller]
        fn check(bindings: &[(&str, &str, &str)], exchange: &str, key: &str, queues: &[u32]) {
            let mut exchanges = exchanges(bindings);
            for _ in 0..2 {
                assert_eq!(
                    route(&mut exchanges, exchange, key),
                    queues,
                    "{exchange} {key}"
                );
            }
        }
        check(&[], "", "7", &[7]);
        check(&[], "", "no queue", &[]);
        check(&[], "t", "a", &[]);
        check(&[("d", "1", "a"), ("d", "2", "b")], "d", "a", &[1]);
        check(&[("d", "1", "#")], "d", "a", &[]);
        check(&[("t", "1", "a.*"), ("t", "2", "#")], "t", "a.b", &[1, 2]);
        check(&[("t", "1", "a.*")], "t", "a", &[]);
        check(&[("f", "1", "x"), ("f", "2", "")], "f", "y", &[1, 2]);
        // Once per queue, however many ways lead there.
        check(&[("t", "1", "a.*"), ("t", "1", "#")], "t", "a.b", &[1]);
        check(
            &[
                ("f", "t", ""),
                ("f", "d", ""),
                ("t", "1", "#"),
                ("d", "1", "k"),
            ],
            "f",
            "k",
            &[1],
        );
        // From exchange to exchange, each by its own kind; in circles too.
        check(&[("t", "d", "a.#"), ("d", "1", "a.b")], "t", "a.b", &[1]);
        check(&[("t", "d", "a.#"), ("d", "1", "a.b")], "t", "a.c", &[]);
        check(
            &[("f", "g", ""), ("g", "f", ""), ("g", "1", "")],
            "f",
            "",
            &[1],
        );
        check(&[("f", "f", ""), ("f", "1", "")], "f", "", &[1]);
    }

    #[test]
    fn a_change_of_bindings_is_seen_at_once() {
        let mut exchanges = exchanges(&[("t", "1", "#"), ("f", "t", "")]);
        assert_eq!(route(&mut exchanges, "f", "a"), [1]);
        let spec = BindingSpec {
            source: "t".to_owned(),
            destination: Destination::Queue("2".to_owned()),
            key: "a".to_owned(),
            arguments: Bytes::new(),
        };
        assert!(exchanges.bind(&spec).unwrap());
        assert!(!exchanges.bind(&spec).unwrap());
        assert_eq!(route(&mut exchanges, "f", "a"), [1, 2]);
        assert_eq!(exchanges.unbind(&spec), (true, false));
        assert_eq!(exchanges.unbind(&spec), (false, false));
        assert_eq!(route(&mut exchanges, "f", "a"), [1]);
        let gone = exchanges.remove("t");
        assert_eq!(gone.bindings.len(), 1);
        assert!(route(&mut exchanges, "f", "a").is_empty());
        assert_eq!(
            exchanges
                .route("t", &"a".into(), |_| None)
                .unwrap_err()
                .code,
            404
        );
    }
}
