//! The suite can fail: for each property, a bus that breaks it and nothing else. Each decorates the
//! bus in memory, fails that property and no other.

mod mutant;

use annals_bus::conformance::{Backend, BoxFuture, PROPERTIES, failures};
use mutant::{Fault, Mutant};
use std::sync::Arc;

/// Each fault and the one property it breaks.
const MUTANTS: &[(Fault, &str)] = &[
    (Fault::LosesAtClose, "a_confirmed_message_is_queued"),
    (
        Fault::DropsPriority,
        "body_and_properties_arrive_byte_identical",
    ),
    (
        Fault::SwapsNeighbours,
        "messages_arrive_in_the_order_published",
    ),
    (Fault::CutsBigBodies, "a_big_and_an_empty_body_pass"),
    (
        Fault::LosesOneOfThousands,
        "ten_thousand_small_messages_arrive",
    ),
    (
        Fault::StarMatchesNothing,
        "a_topic_exchange_routes_by_pattern",
    ),
    (
        Fault::DirectMatchesPatterns,
        "a_direct_exchange_routes_by_equality",
    ),
    (Fault::FanoutLooksAtKeys, "a_fanout_exchange_routes_to_all"),
    (
        Fault::DefaultTakesTheFirstQueue,
        "the_default_exchange_routes_by_queue_name",
    ),
    (
        Fault::IgnoresExchangeBindings,
        "an_exchange_routes_to_exchanges",
    ),
    (
        Fault::CopiesPerBinding,
        "a_queue_gets_one_copy_though_several_bindings_match",
    ),
    (
        Fault::HidesUnroutable,
        "an_unroutable_mandatory_message_is_an_error",
    ),
    (
        Fault::AllMandatory,
        "an_unroutable_message_that_is_not_mandatory_is_no_error",
    ),
    (
        Fault::ClosesOnUnknownExchange,
        "an_unknown_exchange_fails_its_messages_only",
    ),
    (
        Fault::IgnoresPrefetchOfFour,
        "prefetch_bounds_unsettled_deliveries",
    ),
    (Fault::UpToIsOne, "ack_up_to_settles_all_before"),
    (Fault::OneIsUpTo, "ack_of_one_settles_no_other"),
    (
        Fault::RequeuesAtTheEnd,
        "a_requeued_message_comes_back_in_its_place",
    ),
    (Fault::HidesRedelivery, "a_redelivery_says_so"),
    (Fault::RejectRequeues, "a_rejected_message_is_gone"),
    (Fault::TakesAnyTag, "a_wrong_tag_is_refused_and_harmless"),
    (
        Fault::CancelLosesHeld,
        "a_cancelled_consumer_gives_back_what_it_held",
    ),
    (
        Fault::CloseLosesHeld,
        "a_closed_bus_gives_back_what_it_held",
    ),
    (
        Fault::DeliversToAll,
        "two_consumers_share_without_duplicates",
    ),
    (
        Fault::NextLosesWhenDropped,
        "next_can_be_dropped_without_loss",
    ),
    (Fault::EndsWithAnError, "a_consumer_ends_with_its_bus"),
    (
        Fault::ConsumesWhatIsMissing,
        "consuming_a_missing_queue_is_not_found",
    ),
    (Fault::DeclaringPurges, "declaring_again_changes_nothing"),
    (
        Fault::DeclaringBindsAgain,
        "declaring_again_changes_nothing",
    ),
    (
        Fault::HidesConflict,
        "a_conflicting_declaration_is_refused_and_harmless",
    ),
    (
        Fault::KeepsExclusiveQueues,
        "an_exclusive_queue_goes_with_its_connection",
    ),
    (
        Fault::ForgetsAtRestart,
        "a_durable_queue_outlives_a_restart",
    ),
];

fn failures_of(fault: Option<Fault>) -> Vec<&'static str> {
    // Time is paused: a property that waits for ever fails at once.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let fresh = || -> BoxFuture<Arc<dyn Backend>> {
        Box::pin(async move { Arc::new(Mutant::new(fault)) as Arc<dyn Backend> })
    };
    let failures = runtime.block_on(failures(&fresh));
    failures.into_iter().map(|(name, _)| name).collect()
}

#[test]
fn each_mutant_fails_its_property_and_no_other() {
    let failures = |(fault, property): &(Fault, &'static str)| {
        let failures = failures_of(Some(*fault));
        (failures != [*property]).then(|| format!("{fault:?} for {property} fails {failures:?}"))
    };
    let wrong: Vec<String> = MUTANTS.iter().filter_map(failures).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn without_a_fault_the_decorator_conforms() {
    assert!(failures_of(None).is_empty());
}

#[test]
fn every_property_has_its_mutant() {
    let of_properties: Vec<&str> = PROPERTIES.iter().map(|p| p.name).collect();
    let mut of_mutants: Vec<&str> = MUTANTS.iter().map(|(_, property)| *property).collect();
    // A property may have several, next to each other.
    of_mutants.dedup();
    assert_eq!(of_mutants, of_properties);
}
